"""Conditions under which Lava's ATRLIF runs a program with the same bits."""

from __future__ import annotations

import numpy as np

from hw_models.stock.limits import NEURON_BIAS
from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program import neurons
from toolchain.program.bounds import undischarged
from toolchain.program.int_program import IntProgram, Population, Schedule

SCALE = 64
"""Units of ATRLIF's states per weight unit (lava-nc 0.10.0, `atrlif/models.py`)."""
REGISTER = IntRange(-((1 << 23) - 1), (1 << 23) - 1)
"""Range to which ATRLIF clips its potential; its current wraps one beyond."""
NEVER = REGISTER.high
"""Threshold of a readout: reached only beyond the register."""


def check_atrlif(program: IntProgram, *, watch: bool) -> None:
    """Raise TargetError, which names the population, if ATRLIF cannot run the program.

    Parameters
    ----------
    watch:
        Accept registers that only the worst case exceeds; the run watches them.
    """
    if program.schedule.sleep_steps:
        raise TargetError(
            "ATRLIF adds its bias on every step",
            node=program.name,
            found=f"{program.schedule.sleep_steps} sleep steps",
            allowed="0",
            remedy="run it on neurons of our own",
        )
    reached = undischarged(program)
    for population in program.populations:
        neuron = population.neuron
        if not isinstance(neuron, neurons.IntegrateAndFire | neurons.Readout):
            raise TargetError(
                "ATRLIF is IF with reset by subtraction, and nothing else",
                node=population.name,
                found=neuron.kind,
                allowed="if, and a readout",
                remedy=_other_neurons(neuron),
            )
        low, high = int(population.bias.min()), int(population.bias.max())
        if not NEURON_BIAS.contains(low, high):
            raise TargetError(
                "ATRLIF keeps its bias in 16 bits",
                node=population.name,
                found=f"{low} .. {high}",
                allowed=str(NEURON_BIAS),
                remedy='convert with target="stock-netx", whose biases have 16 bits, or fewer '
                "weight bits",
            )
        _check_registers(population, reached[population.name], program.schedule, watch=watch)


def _other_neurons(neuron: neurons.Neuron) -> str:
    """A remedy for a population of other neurons."""
    remedies = {
        neurons.ConsistentIntegrateAndFire.kind: 'convert with neuron="if"',
        neurons.GradedIntegrateAndFire.kind: "convert with max_spike=1",
        neurons.LIPool.kind: "train with average pools in place of max pools",
        neurons.Relay.kind: 'convert with pooling="fold" if it pools; put an activation behind '
        "it in training if it adds branches",
    }
    other = 'leave out neuron_impl="atrlif": the project\'s own neurons give the same bits'
    return f"{remedies[neuron.kind]}, or {other}" if neuron.kind in remedies else other


def _check_registers(
    population: Population, reached: np.ndarray, schedule: Schedule, *, watch: bool
) -> None:
    threshold, (low, high) = _threshold(population), reached
    half = SCALE // 2 * threshold
    fixed = max(int(np.abs(SCALE * _start(population) - half).max()), int(half.max()))
    if fixed > REGISTER.high:
        raise TargetError(
            "threshold or start do not fit ATRLIF's registers",
            node=population.name,
            found=fixed,
            allowed=f"<= {REGISTER.high}, of which {SCALE} are one weight unit",
            remedy="convert with smaller thresholds: fewer weight bits",
        )
    # A spike subtracts a threshold, so there are no more spikes than thresholds in the input.
    spikes = np.clip(high // np.maximum(threshold, 1), 0, schedule.num_steps)
    refractory = int((SCALE * threshold * spikes).max())
    worst = IntRange(int((SCALE * low - half).min()), int((SCALE * high - half).max()))
    for what, interval in (("potential", worst), ("refractory state", IntRange(0, refractory))):
        if not watch and not REGISTER.contains(interval.low, interval.high):
            raise TargetError(
                f"ATRLIF's {what}, which keeps all since the sample began, may leave its register",
                node=population.name,
                found=f"{interval} in the worst case",
                allowed=f"{REGISTER}, of which {SCALE} are one weight unit",
                remedy="watch_ranges=True runs it and stops at the first value that leaves; or "
                "convert with fewer weight bits or steps",
            )


def _start(population: Population) -> np.ndarray:
    neuron = population.neuron
    if isinstance(neuron, neurons.IntegrateAndFire):
        return neuron.initial_potential.astype(np.int64)
    return np.zeros(population.shape[0], np.int64)


def _threshold(population: Population) -> np.ndarray:
    """The thresholds of a population; 0 for a readout."""
    neuron = population.neuron
    if isinstance(neuron, neurons.IntegrateAndFire):
        return neuron.threshold.astype(np.int64)
    return np.zeros(population.shape[0], np.int64)
