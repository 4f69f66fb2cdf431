"""How far the net spike count of a layer can go: linear bounds in wake steps and in steps.

After t steps, n of them awake, the net count of a layer (the sum of all spikes it has sent) lies
in [n * wake.low + t * step.low, n * wake.high + t * step.high].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.spike_ranges import weight_sums, weighted
from toolchain.program.synapse import Synapse

NOTHING = IntRange(0, 0)


@dataclass(frozen=True)
class CountGrowth:
    """Net count added by each wake step and by each step of any kind."""

    wake: IntRange = NOTHING
    step: IntRange = NOTHING

    def after(self, steps: int, wake_steps: int) -> IntRange:
        """Bounds of the net count after `steps` steps, `wake_steps` of them awake."""
        return IntRange(
            wake_steps * self.wake.low + steps * self.step.low,
            wake_steps * self.wake.high + steps * self.step.high,
        )


def count_growths(program: IntProgram) -> dict[str, CountGrowth]:
    """Of the input layer and every population that sends spikes, by name."""
    growths = {INPUT: CountGrowth(wake=program.input.range)}
    for population in program.populations:
        if not isinstance(population.neuron, Readout):
            growths[population.name] = _growth(population.neuron, population.synapses, growths)
    return growths


@singledispatch
def _growth(
    neuron: object, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
) -> CountGrowth:
    raise ProgramError("no bound on the count of this neuron", found=type(neuron).__name__)


@_growth.register
def _(
    neuron: IntegrateAndFire, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
) -> CountGrowth:
    return CountGrowth(step=IntRange(0, 1))


@_growth.register
def _(
    neuron: ConsistentIntegrateAndFire,
    synapses: tuple[Synapse, ...],
    growths: Mapping[str, CountGrowth],
) -> CountGrowth:
    # By its rules, 0 <= N <= n.
    return CountGrowth(wake=IntRange(0, 1))


@_growth.register
def _(
    neuron: LIPool, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
) -> CountGrowth:
    # Its count is one of its window's counts.
    return growths[synapses[0].source]


@_growth.register
def _(
    neuron: Relay, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
) -> CountGrowth:
    wake, step = np.zeros((2, 1), np.int64), np.zeros((2, 1), np.int64)
    for synapse in synapses:
        sums, growth = weight_sums(synapse), growths[synapse.source]
        wake = wake + np.stack(weighted(*sums, growth.wake))
        step = step + np.stack(weighted(*sums, growth.step))
    return CountGrowth(
        IntRange(int(wake[0].min()), int(wake[1].max())),
        IntRange(int(step[0].min()), int(step[1].max())),
    )
