"""Range analysis: for every population, bounds of its sums and states for any input in range.

Per channel, with P and M the sums of positive and negative weights over the whole kernel (the
border only makes sums smaller):

- the current of one step lies in [lo * P + hi * M, hi * P + lo * M] for spikes in [lo, hi];
- the net count c of a source after t steps, n of them awake, is bounded by `count_growth`:
  [0, t] for IF, [0, n] for CIF, n times its graded spike for the input; the summed current is
  bounded by it as the current is by the spikes;
- before firing, v(t) = v0 + summed current + n b - theta * (own count after t - 1 steps);
- a LIPool's state is a count of its source; a relay has none, and is kept at 0.

A step-by-step interval of v is kept beside it and the tighter bound wins. Both are worst cases
over every input, not over a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from toolchain.errors import ProgramError, UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.count_growth import CountGrowth, count_growths
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.spike_ranges import weight_sums, weighted


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
        Channel in which the state's bound of largest magnitude occurs.
    """

    name: str
    current: IntRange
    state: IntRange
    channel: int

    def headroom_bits(self, state: IntRange) -> float:
        """log2 of how many times larger the state could grow."""
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
        Naming the first population whose sums or state could leave it, and the bound.
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
                    "watched: --watch-ranges",
                )
    return bounds


def overload(program: IntProgram) -> dict[str, np.ndarray]:
    """How far each channel's worst case reaches into its range: float64 (C,) by population.

    1 fills the range exactly; above 1 it cannot be proved to stay inside.
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


@dataclass(frozen=True)
class _Currents:
    """Bounds of one population's current as (low, high), int64 (2, C) each.

    Attributes
    ----------
    now:
        In one step.
    by_wake_steps, by_steps:
        Of the sum over steps, for each wake step and for each step.
    """

    now: np.ndarray
    by_wake_steps: np.ndarray
    by_steps: np.ndarray


def _channel_bounds(
    program: IntProgram, population: Population, growths: Mapping[str, CountGrowth]
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the current and of the state as (low, high), int64 (2, C) each."""
    currents = _currents(program, population, growths)
    return currents.now, _state_interval(population.neuron, program, population, currents)


def undischarged(program: IntProgram) -> dict[str, np.ndarray]:
    """Bounds of start, currents and biases summed up since a sample began, spikes not subtracted.

    int64 (2, C), lowest and highest over all steps, by the names of IF populations and readouts;
    what neurons need whose reset moves the threshold in place of the potential.
    """
    growths = count_growths(program)
    found = {}
    for population in program.populations:
        start = zeros = np.zeros(population.shape[0], np.int64)
        if isinstance(population.neuron, IntegrateAndFire):
            start = population.neuron.initial_potential.astype(np.int64)
        elif not isinstance(population.neuron, Readout):
            continue
        currents = _currents(program, population, growths)
        found[population.name] = _potential_interval(
            program, population, currents, start, zeros, None
        )
    return found


def _currents(
    program: IntProgram, population: Population, growths: Mapping[str, CountGrowth]
) -> _Currents:
    zeros = np.zeros((2, population.shape[0]), np.int64)
    currents = _Currents(zeros, zeros, zeros)
    for synapse in population.synapses:
        sums, growth = weight_sums(synapse), growths[synapse.source]
        currents = _Currents(
            currents.now + np.stack(weighted(*sums, program.spike_range(synapse.source))),
            currents.by_wake_steps + np.stack(weighted(*sums, growth.wake)),
            currents.by_steps + np.stack(weighted(*sums, growth.step)),
        )
    return currents


@singledispatch
def _state_interval(
    neuron: object, program: IntProgram, population: Population, currents: _Currents
) -> np.ndarray:
    """Lowest and highest state per channel over all local steps, before and after firing."""
    raise ProgramError("no range analysis for this neuron", found=type(neuron).__name__)


@_state_interval.register
def _(
    neuron: Relay, program: IntProgram, population: Population, currents: _Currents
) -> np.ndarray:
    return np.zeros_like(currents.now)


@_state_interval.register
def _(
    neuron: LIPool, program: IntProgram, population: Population, currents: _Currents
) -> np.ndarray:
    # Each element of a window brings one source's spikes, so the summed current is its count.
    reached = np.zeros_like(currents.now)
    for t in range(1, program.schedule.num_steps + 1):
        n = min(t, program.schedule.wake_steps)
        low, high = n * currents.by_wake_steps + t * currents.by_steps
        reached = np.stack([np.minimum(reached[0], low), np.maximum(reached[1], high)])
    return reached


@_state_interval.register
def _(
    neuron: Readout, program: IntProgram, population: Population, currents: _Currents
) -> np.ndarray:
    zeros = np.zeros(population.shape[0], np.int64)
    return _potential_interval(program, population, currents, zeros, zeros, None)


@_state_interval.register
def _(
    neuron: IntegrateAndFire, program: IntProgram, population: Population, currents: _Currents
) -> np.ndarray:
    start, theta = neuron.initial_potential.astype(np.int64), neuron.threshold.astype(np.int64)
    return _potential_interval(program, population, currents, start, theta, _after_if)


@_state_interval.register
def _(
    neuron: ConsistentIntegrateAndFire,
    program: IntProgram,
    population: Population,
    currents: _Currents,
) -> np.ndarray:
    start, theta = neuron.initial_potential.astype(np.int64), neuron.threshold.astype(np.int64)
    return _potential_interval(program, population, currents, start, theta, _after_cif)


def _potential_interval(
    program: IntProgram,
    population: Population,
    currents: _Currents,
    start: np.ndarray,
    theta: np.ndarray,
    after_firing: Callable[..., tuple[np.ndarray, np.ndarray]] | None,
) -> np.ndarray:
    """Interval of a potential that starts at `start` and loses `theta` with each own spike."""
    bias = population.bias.astype(np.int64)
    low = high = lowest = highest = start
    for t in range(1, program.schedule.num_steps + 1):
        awake = t <= program.schedule.wake_steps
        n = min(t, program.schedule.wake_steps)
        own = min(t - 1, n) if after_firing is _after_cif else t - 1
        add = bias if awake else np.zeros_like(bias)
        total = start + n * (currents.by_wake_steps + bias) + t * currents.by_steps
        total_low, total_high = total[0] - theta * own, total[1]
        low = np.maximum(low + currents.now[0] + add, total_low)
        high = np.minimum(high + currents.now[1] + add, total_high)
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if after_firing is not None:
            low, high = after_firing(low, high, theta)
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return np.stack([lowest, highest])


def _after_if(
    low: np.ndarray, high: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of v after the step, for v in [low, high] before it: IF fires at v >= theta."""
    fires = high >= theta
    stays_high = np.where(low < theta, np.minimum(high, theta - 1), high - theta)
    after_high = np.where(fires, np.maximum(stays_high, high - theta), high)
    after_low = np.where(low >= theta, low - theta, np.where(fires, np.minimum(low, 0), low))
    return after_low, after_high


def _after_cif(
    low: np.ndarray, high: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of v after the step of CIF, which may be held back, so both outcomes count.

    One that takes a spike back goes from below 0 to below theta.
    """
    fires = high >= theta
    after_low = np.where(fires & (low >= 0), 0, low)
    after_low = np.minimum(after_low, low)
    after_high = np.where(low < 0, np.maximum(high, theta - 1), high)
    return after_low, after_high
