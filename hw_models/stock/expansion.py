"""Expansion of consecutive populations into Lava processes: stock synapses, own neurons.

Each stock synapse sends the sum of the step before, so a layer at depth d runs d steps behind the
input. If branches of unequal depth meet, the spikes of the shorter one are delayed; a max
pool has no stock synapse, so all of its latency is a delay. Stock Conv pads both sides alike: where
a kernel sees zeros between values, or more on one side, its spikes are spread before it.
Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from hw_models.axes import lava_shape
from hw_models.local_time import LocalTime
from hw_models.message_bits import message_bits
from hw_models.processes.atrlif_population import AtrlifPopulation
from hw_models.processes.consistent_integrate_and_fire import ConsistentIntegrateAndFireProcess
from hw_models.processes.delay import Delay
from hw_models.processes.graded_integrate_and_fire import GradedIntegrateAndFireProcess
from hw_models.processes.integrate_and_fire import IntegrateAndFireProcess
from hw_models.processes.lipool import LIPoolProcess
from hw_models.processes.readout import ReadoutProcess
from hw_models.processes.relay import RelayProcess
from hw_models.processes.spread import Spread
from hw_models.recorder import Recorder
from hw_models.stock.connection import connection
from hw_models.stock.limits import check_runnable
from toolchain.errors import TargetError
from toolchain.program import neurons
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse


def expand(
    program: IntProgram,
    populations: tuple[Population, ...],
    source: tuple[str, Any],
    clock: Callable[[str], LocalTime],
    recorders: Mapping[str, Recorder],
    *,
    atrlif: bool = False,
) -> tuple[list[Any], Any]:
    """Make and connect the processes of `populations`.

    Parameters
    ----------
    source:
        Name of the layer that feeds them, and a port that sends its spikes.
    clock:
        Local time of a layer by its name.
    recorders:
        Recorder of the local steps of a population, by name.
    atrlif:
        Whether neurons are Lava's ATRLIF, for programs that pass `check_atrlif`.

    Returns
    -------
    All processes made, and the port that sends the last population's spikes.

    Raises
    ------
    TargetError
        If Lava cannot run a population. The error names the population and the reason.
    """
    check_runnable(program)
    lines = _Lines(program, source)
    for population in populations:
        how: dict[str, Any] = {
            "name": population.name,
            "clock": clock(population.name),
            "recorder": recorders.get(population.name),
        }
        if atrlif:
            process = lines.made(_atrlif(population, **how))
        else:
            how["state_bits"] = program.state_bits
            process = lines.made(_neuron(population.neuron, population, program, **how))
        for synapse in population.synapses:
            _connect(synapse, lines, program.delay(population, synapse), process)
        lines.add(population.name, process.s_out)
    return lines.processes, lines.port(populations[-1].name, 0)


class _Lines:
    """Ports that send the spikes of each layer, immediately or some steps later.

    Attributes
    ----------
    processes:
        All processes made so far.
    """

    def __init__(self, program: IntProgram, source: tuple[str, Any]) -> None:
        self._program = program
        name, port = source
        self._ports = {(name, 0): port}
        self.processes: list[Any] = []

    def made(self, process: Any) -> Any:
        """Register a new process; returns it."""
        self.processes.append(process)
        return process

    def add(self, name: str, port: Any) -> None:
        """Register `port` as the sender of the spikes of the population called `name`."""
        self._ports[name, 0] = port

    def port(self, name: str, delay: int) -> Any:
        """A port that sends the spikes of `name` `delay` steps late; branches share it."""
        if (name, delay) not in self._ports:
            process = self.made(Delay(shape=lava_shape(self.shape(name)), steps=delay))
            self._ports[name, 0].connect(process.s_in)
            self._ports[name, delay] = process.s_out
        return self._ports[name, delay]

    def spread(self, synapse: ConvSynapse, shape: tuple[int, ...], source: Any) -> Any:
        """A port that sends the spikes of `source`, (C, H, W), as the kernel sees them."""
        size, places = synapse.laid_out(shape)
        process = self.made(Spread(shape=lava_shape(shape), plane=size[::-1], places=places[::-1]))
        source.connect(process.s_in)
        return process.s_out

    def shape(self, name: str) -> tuple[int, ...]:
        """(C, H, W) or (F,) of the layer called `name`."""
        return self._program.source_shape(name)

    def bits(self, name: str) -> int:
        """Message bits of the layer called `name`."""
        return message_bits(self._program.spike_range(name))


@singledispatch
def _connect(synapse: object, lines: _Lines, delay: int, process: Any) -> None:
    """Connect the spikes of a synapse's source to `process`."""
    raise TargetError("no Lava process for this synapse", found=type(synapse).__name__)


@_connect.register(ConvSynapse)
@_connect.register(DenseSynapse)
def _(synapse: ConvSynapse | DenseSynapse, lines: _Lines, delay: int, process: Any) -> None:
    shape, source = lines.shape(synapse.source), lines.port(synapse.source, delay)
    if isinstance(synapse, ConvSynapse) and not synapse.is_even:
        source = lines.spread(synapse, shape, source)
        synapse, shape = synapse.on_plane(shape)
    made, port = connection(synapse, shape, source, lines.bits(synapse.source))
    lines.made(made)
    port.connect(process.a_in)


@_connect.register
def _(synapse: WindowSynapse, lines: _Lines, delay: int, process: Any) -> None:
    # Without a stock synapse, the delay includes its step of latency.
    lines.port(synapse.source, delay + 1).connect(process.s_in)


@singledispatch
def _neuron(neuron: object, population: Population, program: IntProgram, **how: Any) -> Any:
    raise TargetError(
        "no Lava process for this neuron", node=population.name, found=type(neuron).__name__
    )


@_neuron.register
def _(
    neuron: neurons.IntegrateAndFire, population: Population, program: IntProgram, **how: Any
) -> Any:
    return IntegrateAndFireProcess(**_spiking(neuron, population), **how)


@_neuron.register
def _(
    neuron: neurons.GradedIntegrateAndFire,
    population: Population,
    program: IntProgram,
    **how: Any,
) -> Any:
    how["max_spike"] = neuron.max_spike
    return GradedIntegrateAndFireProcess(**_spiking(neuron, population), **how)


@_neuron.register
def _(
    neuron: neurons.ConsistentIntegrateAndFire,
    population: Population,
    program: IntProgram,
    **how: Any,
) -> Any:
    return ConsistentIntegrateAndFireProcess(**_spiking(neuron, population), **how)


@_neuron.register
def _(neuron: neurons.LIPool, population: Population, program: IntProgram, **how: Any) -> Any:
    (synapse,) = population.synapses
    if not isinstance(synapse, WindowSynapse):
        raise TargetError("a LIPool needs windows", node=population.name)
    return LIPoolProcess(
        source_shape=lava_shape(program.source_shape(synapse.source)),
        shape=lava_shape(population.shape),
        kernel=synapse.kernel[::-1],
        stride=synapse.stride[::-1],
        padding=synapse.padding[::-1],
        dilation=synapse.dilation[::-1],
        **how,
    )


@_neuron.register
def _(neuron: neurons.Relay, population: Population, program: IntProgram, **how: Any) -> Any:
    return RelayProcess(shape=lava_shape(population.shape), **how)


@_neuron.register
def _(neuron: neurons.Readout, population: Population, program: IntProgram, **how: Any) -> Any:
    return ReadoutProcess(shape=lava_shape(population.shape), bias=np.array(population.bias), **how)


def _atrlif(population: Population, **how: Any) -> Any:
    if isinstance(population.neuron, neurons.IntegrateAndFire):
        return AtrlifPopulation(**_spiking(population.neuron, population), **how)
    return AtrlifPopulation(
        shape=lava_shape(population.shape),
        threshold=None,
        initial_potential=np.zeros(population.shape[0], np.int64),
        bias=np.array(population.bias),
        **how,
    )


def _spiking(neuron: neurons.ThresholdNeuron, population: Population) -> dict[str, Any]:
    return {
        "shape": lava_shape(population.shape),
        "threshold": np.array(neuron.threshold),
        "initial_potential": np.array(neuron.initial_potential),
        "bias": np.array(population.bias),
    }
