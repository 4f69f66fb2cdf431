"""Readout: a non-spiking integer accumulator, `v += I` from 0.

Its value after the last local step is the logit, in units of `scale` per wake step: the
network's real output is `scale * v / wake_steps`. One scale for all channels, since a
per-channel one would change the argmax; ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.neurons.base import CountGrowth, Neuron, PerChannel, Step
from toolchain.program.state_interval import Currents
from toolchain.program.synapse import Synapse

if TYPE_CHECKING:
    from toolchain.program.population import Population
    from toolchain.program.well_formed import Senders


@dataclass(frozen=True)
class Readout(Neuron):
    """Parameters of a readout population: `real = scale * int`."""

    scale: float

    kind: ClassVar[str] = "READOUT"
    real_names: ClassVar[tuple[str, ...]] = ("scale",)
    watched: ClassVar[str] = "accumulator"

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < float("inf"):
            raise ProgramError("a readout scale must be positive and finite", found=self.scale)

    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless the population is a vector or an image."""
        if len(population.shape) not in (1, 3):
            raise ProgramError(
                "a readout is a vector or an image",
                node=population.name,
                found=population.shape,
                allowed="(K,) or (C, H, W)",
            )

    def begin(self, zeros: Any, per_channel: PerChannel) -> Any:
        """State before local step 1: the accumulator is 0."""
        return zeros

    def advance(self, state: Any, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """Add the current to the accumulator; there are no spikes."""
        accumulator = state + current
        return Step(accumulator, accumulator, None, accumulator)

    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """The range 0 .. 0: a readout sends no spikes."""
        return IntRange(0, 0)

    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """Zero: a readout sends no spikes."""
        return CountGrowth()

    def state_interval(self, currents: Currents) -> np.ndarray:
        """Interval of the summed current and bias."""
        return currents.potential_interval(np.zeros_like(currents.bias))

    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """The summed current itself, (N, ...): a readout does not fire."""
        return total

    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Always 0: a readout never fires."""
        return 0
