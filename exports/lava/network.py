"""Builds the Lava processes of a program: stock Dense and Conv synapses, our neurons.

Stock convolutions take (W, H, C) arrays and flip their kernels; dense layers take sources
flattened in C, H, W order. Each synapse sends the sum of the step before, so a layer at depth d
runs d steps behind the input. Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.utils.weightutils import SignMode

from exports.lava.axes import lava_shape
from exports.lava.limits import DENSE_WEIGHT_BITS, check_runnable
from hw_models.local_time import LocalTime
from hw_models.processes.consistent_integrate_and_fire import ConsistentIntegrateAndFire
from hw_models.processes.graded_input import GradedInput
from hw_models.processes.integrate_and_fire import IntegrateAndFire
from hw_models.processes.readout import Readout
from toolchain import neurons
from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse


def build(
    program: IntProgram, samples_path: Path, num_samples: int, trace_paths: dict[str, Path]
) -> tuple[Any, int]:
    """Make and connect all processes.

    Parameters
    ----------
    samples_path:
        `.npy` of graded input spikes in Lava's axis order, see `axes.to_lava`.
    trace_paths:
        Where each population leaves its trace.

    Returns
    -------
    The input process, through which the whole network is run, and the number of global steps.

    Raises
    ------
    TargetError
        Naming the population that Lava cannot run, and why.
    """
    check_runnable(program)
    schedule, depths = program.schedule, program.depths()

    def clock(name: str) -> LocalTime:
        return LocalTime(depths[name], schedule.wake_steps, schedule.sleep_steps, num_samples)

    first = GradedInput(
        shape=lava_shape(program.input.shape), samples_path=str(samples_path), clock=clock(INPUT)
    )
    outputs = {INPUT: first.s_out}
    for population in program.populations:
        process = _neuron(
            population.neuron,
            population,
            clock=clock(population.name),
            state_bits=program.state_bits,
            trace_path=str(trace_paths[population.name]),
        )
        for synapse in population.synapses:
            shape = program.source_shape(synapse.source)
            bits = message_bits(program, synapse.source)
            connection = _connect(synapse, outputs[synapse.source], shape, bits)
            connection.a_out.connect(process.a_in)
        if not isinstance(population.neuron, neurons.Readout):
            outputs[population.name] = process.s_out
    last = max(depths.values())
    return first, num_samples * schedule.num_steps + last


def message_bits(program: IntProgram, source: str) -> int:
    """`num_message_bits` of a layer's spikes: 0 for unary, more for graded or signed ones."""
    if source == INPUT:
        return program.input.bits
    neuron = program.population(source).neuron
    return 0 if isinstance(neuron, neurons.Readout) else neuron.num_message_bits


@singledispatch
def _connect(synapse: object, out: Any, shape: tuple[int, ...], bits: int) -> Any:
    raise TargetError("no Lava process for this synapse", found=type(synapse).__name__)


@_connect.register
def _(synapse: ConvSynapse, out: Any, shape: tuple[int, ...], bits: int) -> Any:
    # Stock Conv ignores weight_exp, so the exponent goes into the weights.
    flipped = synapse.weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1) << synapse.weight_exponent
    process = Conv(
        weight=np.ascontiguousarray(flipped),
        input_shape=lava_shape(shape),
        stride=synapse.stride[::-1],
        padding=synapse.padding[::-1],
        dilation=synapse.dilation[::-1],
        groups=synapse.groups,
        num_message_bits=bits,
    )
    out.connect(process.s_in)
    return process


@_connect.register
def _(synapse: DenseSynapse, out: Any, shape: tuple[int, ...], bits: int) -> Any:
    # Mixed-sign weights lose their lowest bit, so they go in doubled and the sum is halved.
    process = Dense(
        weights=synapse.weight.astype(np.int32) * 2,
        weight_exp=synapse.weight_exponent - 1,
        num_weight_bits=DENSE_WEIGHT_BITS,
        sign_mode=SignMode.MIXED,
        num_message_bits=bits,
    )
    if len(shape) == 1:
        out.connect(process.s_in)
    else:
        out.transpose([2, 1, 0]).flatten().connect(process.s_in)
    return process


@singledispatch
def _neuron(neuron: object, population: Population, **how: Any) -> Any:
    raise TargetError(
        "no Lava process for this neuron", node=population.name, found=type(neuron).__name__
    )


@_neuron.register
def _(neuron: neurons.IntegrateAndFire, population: Population, **how: Any) -> Any:
    return IntegrateAndFire(**_spiking(neuron, population), **how)


@_neuron.register
def _(neuron: neurons.ConsistentIntegrateAndFire, population: Population, **how: Any) -> Any:
    return ConsistentIntegrateAndFire(**_spiking(neuron, population), **how)


@_neuron.register
def _(neuron: neurons.Readout, population: Population, **how: Any) -> Any:
    return Readout(shape=population.shape, bias=np.array(population.bias), **how)


def _spiking(
    neuron: neurons.IntegrateAndFire | neurons.ConsistentIntegrateAndFire, population: Population
) -> dict[str, Any]:
    return {
        "shape": lava_shape(population.shape),
        "threshold": np.array(neuron.threshold),
        "initial_potential": np.array(neuron.initial_potential),
        "bias": np.array(population.bias),
    }
