"""Graded IF: an IF neuron that sends several spikes of one step as one graded spike.

One step, in this order (`v(0) = initial_potential`):

    v += I
    s  = clip(floor(v / threshold), 0, max_spike)
    v -= threshold * s

With `max_spike = 1` this is the IF neuron. With the threshold `lam / K` and `max_spike = K`, T
steps have K T levels up to `lam`; one step is the quantized activation itself, see docs/METHODS.md,
"Graded IF neuron". Loihi 2's spikes carry such numbers (lava-nc 0.10.0: payloads of 24 bits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.neurons.integrate_and_fire import IntegrateAndFireState, SubtractingNeuron

LARGEST_SPIKES = IntRange(2, IntRange.signed(8).high)
"""Range of `max_spike`: 1 is the IF neuron, and recordings store spikes as int8."""


@dataclass(frozen=True, eq=False)
class GradedIntegrateAndFire(SubtractingNeuron):
    """Parameters of a graded IF population; see the module for the equation.

    Attributes
    ----------
    max_spike:
        Largest graded spike, the same for all channels.
    """

    kind: ClassVar[str] = "GRADED_IF"
    integer_names: ClassVar[tuple[str, ...]] = ("max_spike",)

    max_spike: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not LARGEST_SPIKES.contains(self.max_spike, self.max_spike):
            raise ProgramError(
                "the largest spike of a graded IF neuron is out of range",
                found=self.max_spike,
                allowed=str(LARGEST_SPIKES),
                remedy="1 is the IF neuron",
            )

    @property
    def largest_spike(self) -> int:
        """Largest spike of one step."""
        return self.max_spike

    def step(
        self, state: IntegrateAndFireState, current: Any, threshold: Any, awake: bool
    ) -> tuple[IntegrateAndFireState, Any]:
        """One step; arrays broadcast to (N, ...). Returns the state and spikes 0 .. max_spike."""
        v = state.membrane_potential + current
        spikes = (v // threshold).clip(0, self.max_spike)
        return IntegrateAndFireState(v - threshold * spikes), spikes

    def after_firing(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds after firing: where the spikes differ, any rest of a threshold is possible."""
        theta = self.threshold.astype(np.int64)
        least, most = ((v // theta).clip(0, self.max_spike) for v in (low, high))
        after_low, after_high = low - theta * least, high - theta * most
        same = least == most
        return (
            np.where(same, after_low, np.minimum(after_low, 0)),
            np.where(same, after_high, np.maximum(after_high, theta - 1)),
        )
