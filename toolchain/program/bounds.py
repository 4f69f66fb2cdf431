"""Range analysis: for every population, bounds of its sums and states for any input in range.

Per channel, with P and M the sums of positive and negative weights over the whole kernel (the
border only makes sums smaller):

- the current of one step lies in [lo * P + hi * M, hi * P + lo * M] for spikes in [lo, hi];
- the net count c of a source after t steps lies in [0, t] for IF and, by its rules, in [0, n(t)]
  for CIF, n the wake steps so far; the summed current then lies in [c M, c P]. The input sends
  the same graded spike on every wake step: n times its current;
- before firing, v(t) = v0 + summed current + n b - theta * (own count after t - 1 steps).

A step-by-step interval of v is kept beside it and the tighter bound wins. Both are worst cases
over every input, not over a data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from toolchain.errors import ProgramError, UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.neurons import IntegrateAndFire, Readout
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse


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


@singledispatch
def weight_sums(synapse: object) -> tuple[np.ndarray, np.ndarray]:
    """Sums of positive and of negative weights a channel, exponent included: int64 (C,), (C,)."""
    raise ProgramError("no range analysis for this synapse", found=type(synapse).__name__)


@weight_sums.register
def _(synapse: ConvSynapse) -> tuple[np.ndarray, np.ndarray]:
    return _signed_sums(synapse.weight, synapse.weight_exponent)


@weight_sums.register
def _(synapse: DenseSynapse) -> tuple[np.ndarray, np.ndarray]:
    return _signed_sums(synapse.weight, synapse.weight_exponent)


def _signed_sums(weight: np.ndarray, exponent: int) -> tuple[np.ndarray, np.ndarray]:
    rows = weight.reshape(len(weight), -1).astype(np.int64) << exponent
    return np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)


def analyse(program: IntProgram) -> tuple[PopulationBounds, ...]:
    """Bounds of every population, in order."""
    return tuple(_bounds(program, population) for population in program.populations)


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
    loads = {}
    for population in program.populations:
        intervals = _channel_bounds(program, population)
        below = [low / state.low for low, _ in intervals]
        above = [high / state.high for _, high in intervals]
        loads[population.name] = np.max([*below, *above], axis=0)
    return loads


def _bounds(program: IntProgram, population: Population) -> PopulationBounds:
    (low, high), (lowest, highest) = _channel_bounds(program, population)
    worst = int(np.argmax(np.maximum(-lowest, highest)))
    return PopulationBounds(
        population.name,
        IntRange(int(low.min()), int(high.max())),
        IntRange(int(lowest.min()), int(highest.max())),
        worst,
    )


def _channel_bounds(
    program: IntProgram, population: Population
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Intervals (low, high) of the current and of the state, int64 (C,) each."""
    channels = population.shape[0]
    low = np.zeros(channels, np.int64)
    high = np.zeros(channels, np.int64)
    by_wake_steps = np.zeros((2, channels), np.int64)
    by_steps = np.zeros((2, channels), np.int64)
    for synapse in population.synapses:
        positive, negative = weight_sums(synapse)
        spikes = program.spike_range(synapse.source)
        step_low = spikes.low * positive + spikes.high * negative
        step_high = spikes.high * positive + spikes.low * negative
        low, high = low + step_low, high + step_high
        if synapse.source == INPUT:
            by_wake_steps += np.stack([step_low, step_high])
        elif isinstance(program.population(synapse.source).neuron, IntegrateAndFire):
            by_steps += np.stack([negative, positive])
        else:
            by_wake_steps += np.stack([negative, positive])
    state = _state_interval(program, population, (low, high), by_wake_steps, by_steps)
    return (low, high), state


def _state_interval(
    program: IntProgram,
    population: Population,
    step: tuple[np.ndarray, np.ndarray],
    by_wake_steps: np.ndarray,
    by_steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest state a channel over all local steps, before and after firing.

    `by_wake_steps` and `by_steps`, (2, C), bound the summed current as (low, high) for each wake
    step and for each step.
    """
    neuron = population.neuron
    bias = population.bias.astype(np.int64)
    if isinstance(neuron, Readout):
        start, theta = np.zeros_like(bias), np.zeros_like(bias)
    else:
        start = neuron.initial_potential.astype(np.int64)
        theta = neuron.threshold.astype(np.int64)
    low = high = lowest = highest = start
    for t in range(1, program.schedule.num_steps + 1):
        awake = t <= program.schedule.wake_steps
        n = min(t, program.schedule.wake_steps)
        own = t - 1 if isinstance(neuron, IntegrateAndFire) else min(t - 1, n)
        add = bias if awake else np.zeros_like(bias)
        total = start + n * (by_wake_steps + bias) + t * by_steps
        total_low, total_high = total[0] - theta * own, total[1]
        low = np.maximum(low + step[0] + add, total_low)
        high = np.minimum(high + step[1] + add, total_high)
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if not isinstance(neuron, Readout):
            low, high = _after_firing(isinstance(neuron, IntegrateAndFire), low, high, theta)
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return lowest, highest


def _after_firing(
    always_fires: bool, low: np.ndarray, high: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of v after the step, for v in [low, high] before it.

    IF always fires at v >= theta. CIF may be held back, so both outcomes count there; one that
    takes a spike back goes from below 0 to below theta.
    """
    fires = high >= theta
    if always_fires:
        stays_high = np.where(low < theta, np.minimum(high, theta - 1), high - theta)
        after_high = np.where(fires, np.maximum(stays_high, high - theta), high)
        after_low = np.where(low >= theta, low - theta, np.where(fires, np.minimum(low, 0), low))
        return after_low, after_high
    takes_back = low < 0
    after_low = np.where(fires & (low >= 0), 0, low)
    after_low = np.minimum(after_low, low)
    after_high = np.where(takes_back, np.maximum(high, theta - 1), high)
    return after_low, after_high
