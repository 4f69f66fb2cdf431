"""Checks of an integer program's populations: names, order, shapes, widths, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.neurons import LIPool, Readout
from toolchain.program.population import INPUT, Population
from toolchain.program.synapse import Synapse, WindowSynapse


@dataclass
class Senders:
    """Properties of the layers before a population.

    Attributes
    ----------
    shapes, ranges:
        Shape and spike range of the input and of each spiking population so far, by name.
    counting:
        Names of the layers whose net spike count is never negative.
    state:
        Range of thresholds, biases and relayed currents.
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
        If one is not well formed. The error names the population and the fault.
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
        spikes = _spikes_sent(population, senders)
        neuron.check(population, senders)
        if not isinstance(neuron, Readout):
            senders.shapes[name] = population.shape
            senders.ranges[name] = spikes
            if not neuron.graded:
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


def _spikes_sent(population: Population, senders: Senders) -> IntRange:
    try:
        return population.neuron.spikes_sent(population.synapses, senders.ranges, senders.shapes)
    except ProgramError as error:
        raise ProgramError(
            error.message, node=population.name, found=error.found, allowed=error.allowed
        ) from error
