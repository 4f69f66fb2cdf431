"""Well-formedness of an integer program's populations: names, order, shapes, widths, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np

from toolchain.errors import ProgramError, UnprovedRangeError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Neuron,
    Readout,
    Relay,
)
from toolchain.program.population import INPUT, Population
from toolchain.program.spike_ranges import spike_range
from toolchain.program.synapse import Synapse, WindowSynapse

POOLABLE = IntRange(-1, 1)
"""Spikes a LIPool takes; it counts them."""
FOLD = "fold the pool into the layer that follows it instead"


@dataclass
class Senders:
    """What is known of the layers before a population.

    Attributes
    ----------
    shapes, ranges:
        Shape and spike range of the input and of each spiking population so far, by name.
    counting:
        Names of those that send unary or signed unary spikes (no graded ones).
    state:
        What a threshold, a bias or a relayed current may be.
    """

    state: IntRange
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    ranges: dict[str, IntRange] = field(default_factory=dict)
    counting: set[str] = field(default_factory=set)


def check_populations(
    program: str,
    input_shape: tuple[int, ...],
    input_range: IntRange,
    populations: tuple[Population, ...],
    weights: IntRange,
    state: IntRange,
) -> Mapping[str, IntRange]:
    """Check all populations of the program called `program`, in order.

    Returns
    -------
    The spike range of the input and of every spiking population, by name.

    Raises
    ------
    ProgramError, ValueRangeError
        Naming the population and what is wrong with it.
    """
    if not populations:
        raise ProgramError("a program needs at least one population", node=program)
    for name in (program, *(p.name for p in populations)):
        if "\0" in name or not _is_unicode(name):
            raise ProgramError("a name must be Unicode without NUL, as files hold it", node=name)
    senders = Senders(state, {INPUT: input_shape}, {INPUT: input_range})
    names = {INPUT}
    for population in populations:
        name, neuron = population.name, population.neuron
        if name in names or not name or "/" in name:
            raise ProgramError("a name must be new, not empty and without '/'", node=name)
        names.add(name)
        if not population.synapses:
            raise ProgramError("a population needs a synapse", node=name)
        for synapse in population.synapses:
            _check_synapse(population, synapse, senders, weights)
        if population.bias.shape != (population.shape[0],):
            raise ProgramError(
                "bias needs one value per channel",
                node=name,
                found=population.bias.shape,
                allowed=(population.shape[0],),
            )
        check_neuron(neuron, population, senders)
        if not isinstance(neuron, Readout):
            senders.shapes[name] = population.shape
            senders.ranges[name] = _spike_range(population, senders)
            if not isinstance(neuron, Relay):
                senders.counting.add(name)
    _check_readouts(program, populations)
    return senders.ranges


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_readouts(program: str, populations: tuple[Population, ...]) -> None:
    readouts = [p.name for p in populations if isinstance(p.neuron, Readout)]
    if not readouts:
        raise ProgramError("a program needs a readout", node=program, found="none")
    behind = [p.name for p in populations[-len(readouts) :] if p.name not in readouts]
    if behind:
        raise ProgramError("the readouts must come last", node=readouts[0], found=behind[-1])


def _check_synapse(
    population: Population, synapse: Synapse, senders: Senders, weights: IntRange
) -> None:
    name = population.name
    if synapse.source not in senders.shapes:
        raise ProgramError(
            "a synapse must come from an earlier spiking layer",
            node=name,
            found=synapse.source,
            allowed=", ".join(sorted(senders.shapes)),
        )
    shape = synapse.output_shape(senders.shapes[synapse.source])
    if shape != population.shape:
        raise ProgramError(
            "a synapse does not fit its population",
            node=name,
            found=shape,
            allowed=population.shape,
        )
    if isinstance(synapse, WindowSynapse) != isinstance(population.neuron, LIPool):
        raise ProgramError(
            "a LIPool is fed by windows, and nothing else is",
            node=name,
            found=f"a {synapse.describe()['kind']} synapse into {population.neuron.kind}",
        )
    for what, array in synapse.arrays().items():
        weights.check(f"{name} {what}", array)


def _spike_range(population: Population, senders: Senders) -> IntRange:
    try:
        return spike_range(population.neuron, population.synapses, senders.ranges)
    except ProgramError as error:
        raise ProgramError(
            error.message, node=population.name, found=error.found, allowed=error.allowed
        ) from error


@singledispatch
def check_neuron(neuron: Neuron, population: Population, senders: Senders) -> None:
    """Check what one kind of neuron asks of its population; raises ProgramError."""
    raise ProgramError("unknown neuron", node=population.name, found=type(neuron).__name__)


@check_neuron.register
def _(neuron: Readout, population: Population, senders: Senders) -> None:
    if len(population.shape) not in (1, 3):
        raise ProgramError(
            "a readout is a vector or an image",
            node=population.name,
            found=population.shape,
            allowed="(K,) or (C, H, W)",
        )


@check_neuron.register(IntegrateAndFire)
@check_neuron.register(ConsistentIntegrateAndFire)
def _(
    neuron: IntegrateAndFire | ConsistentIntegrateAndFire,
    population: Population,
    senders: Senders,
) -> None:
    channels = (population.shape[0],)
    if neuron.threshold.shape != channels:
        raise ProgramError(
            "threshold needs one value per channel",
            node=population.name,
            found=neuron.threshold.shape,
            allowed=channels,
        )
    for what, values in (
        ("threshold", neuron.threshold),
        ("initial potential", neuron.initial_potential),
        ("bias", population.bias),
    ):
        try:
            senders.state.check(f"{population.name} {what}", values)
        except ValueRangeError as error:
            raise ProgramError(
                f"{what} leaves the state range",
                node=population.name,
                found=error.found,
                allowed=str(senders.state),
            ) from error


@check_neuron.register
def _(neuron: LIPool, population: Population, senders: Senders) -> None:
    _check_no_bias(population)
    if len(population.synapses) != 1:
        raise ProgramError(
            "a LIPool pools one layer",
            node=population.name,
            found=", ".join(s.source for s in population.synapses),
        )
    (synapse,) = population.synapses
    spikes = senders.ranges[synapse.source]
    if synapse.source not in senders.counting or not POOLABLE.contains(spikes.low, spikes.high):
        raise ProgramError(
            "a LIPool counts unary spikes; it cannot pool graded ones",
            node=population.name,
            found=f"{synapse.source}, which sends {spikes}",
            allowed="a layer of IF, CIF or LIPool",
            remedy="put a quantized activation between them, or pool by an average",
        )


@check_neuron.register
def _(neuron: Relay, population: Population, senders: Senders) -> None:
    _check_no_bias(population)
    spikes = _spike_range(population, senders)
    for limits, what in ((neuron.spike_limits, "8 bits"), (senders.state, "the state range")):
        if not limits.contains(spikes.low, spikes.high):
            raise UnprovedRangeError(
                f"the spikes this relay passes on may not fit {what}",
                node=population.name,
                found=f"{spikes} in the worst case",
                allowed=str(limits),
                remedy=FOLD,
            )


def _check_no_bias(population: Population) -> None:
    if np.any(population.bias):
        raise ProgramError(
            f"a {population.neuron.kind} has no bias",
            node=population.name,
            found=f"{int(np.count_nonzero(population.bias))} biases that are not 0",
            allowed="0",
        )
