"""Range analysis: for every population, bounds of its sums and states for any input in range.

Per channel, with P and M the sums of positive and negative weights over the whole kernel (the
border only makes sums smaller):

- the current of one step lies in [lo * P + hi * M, hi * P + lo * M] for spikes in [lo, hi];
- the net count of a source after t steps, n of them awake, is bounded by `count_growth` (that of
  the input by n spikes in its range, equal or not); the summed current is bounded by the counts as
  the current is by the spikes;
- the bounds of the state follow from the neuron (`state_interval`).

All bounds are worst cases over every possible input, not over a data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.errors import UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.count_growth import count_growths
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import CountGrowth, IntegrateAndFire, Readout
from toolchain.program.spike_ranges import weight_sums, weighted
from toolchain.program.state_interval import Currents


@dataclass(frozen=True)
class PopulationBounds:
    """Worst-case intervals of one population, over all channels and steps.

    Attributes
    ----------
    current:
        Sum of all synapses in one step, without bias.
    state:
        Membrane potential (or accumulator) before and after firing.
    channel:
        Channel with the state bound of largest magnitude.
    """

    name: str
    current: IntRange
    state: IntRange
    channel: int

    def headroom_bits(self, state: IntRange) -> float:
        """Bits by which the state could still grow inside `state`: log2 of the factor."""
        worst = max(abs(self.state.low), abs(self.state.high), 1)
        return float(np.log2(state.high / worst))


def analyse(program: IntProgram) -> tuple[PopulationBounds, ...]:
    """Bounds of every population, in order."""
    growths = count_growths(program)
    return tuple(_bounds(program, population, growths) for population in program.populations)


def prove(program: IntProgram) -> tuple[PopulationBounds, ...]:
    """Bounds of every population, all inside the state range.

    Raises
    ------
    UnprovedRangeError
        If a sum or state could leave it. The error names the first such population and the bound.
    """
    state = program.state_range
    bounds = analyse(program)
    for bound in bounds:
        for what, interval in (("current", bound.current), ("membrane potential", bound.state)):
            if not state.contains(interval.low, interval.high):
                raise UnprovedRangeError(
                    f"the {what} cannot be proved to stay within {program.state_bits} bits",
                    node=bound.name,
                    found=f"{interval} in the worst case (channel {bound.channel})",
                    allowed=str(state),
                    remedy="use fewer weight bits or steps, or accept it and have the run "
                    "watched: watch_ranges=True",
                )
    return bounds


def overload(program: IntProgram) -> dict[str, np.ndarray]:
    """Worst case per channel, as a share of the state range: float64 (C,) by population.

    1 fills the range exactly; above 1 the state cannot be proved to stay inside.
    """
    state = program.state_range
    growths = count_growths(program)
    loads = {}
    for population in program.populations:
        intervals = _channel_bounds(program, population, growths)
        below = [low / state.low for low, _ in intervals]
        above = [high / state.high for _, high in intervals]
        loads[population.name] = np.max([*below, *above], axis=0)
    return loads


def _bounds(
    program: IntProgram, population: Population, growths: Mapping[str, CountGrowth]
) -> PopulationBounds:
    (low, high), (lowest, highest) = _channel_bounds(program, population, growths)
    worst = int(np.argmax(np.maximum(-lowest, highest)))
    return PopulationBounds(
        population.name,
        IntRange(int(low.min()), int(high.max())),
        IntRange(int(lowest.min()), int(highest.max())),
        worst,
    )


def _channel_bounds(
    program: IntProgram, population: Population, growths: Mapping[str, CountGrowth]
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the current and of the state as (low, high), int64 (2, C) each."""
    currents = _currents(program, population, growths)
    return currents.now, population.neuron.state_interval(currents)


def undischarged(program: IntProgram) -> dict[str, np.ndarray]:
    """Bounds of start, currents and biases summed since a sample began, without any reset.

    int64 (2, C), lowest and highest over all steps, by the names of IF populations and readouts.
    Needed for neurons whose reset raises the threshold instead of lowering the membrane potential.
    """
    growths = count_growths(program)
    found = {}
    for population in program.populations:
        start = np.zeros(population.shape[0], np.int64)
        if isinstance(population.neuron, IntegrateAndFire):
            start = population.neuron.initial_potential.astype(np.int64)
        elif not isinstance(population.neuron, Readout):
            continue
        currents = _currents(program, population, growths)
        found[population.name] = currents.potential_interval(start)
    return found


def _currents(
    program: IntProgram, population: Population, growths: Mapping[str, CountGrowth]
) -> Currents:
    now, by_wake_steps, by_steps = np.zeros((3, 2, population.shape[0]), np.int64)
    for synapse in population.synapses:
        sums, growth = weight_sums(synapse), growths[synapse.source]
        now = now + np.stack(weighted(*sums, program.spike_range(synapse.source)))
        by_wake_steps = by_wake_steps + np.stack(weighted(*sums, growth.wake))
        by_steps = by_steps + np.stack(weighted(*sums, growth.step))
    schedule = program.schedule
    bias = population.bias.astype(np.int64)
    return Currents(now, by_wake_steps, by_steps, bias, schedule.wake_steps, schedule.num_steps)
