"""Relay: a stateless population that passes its summed current on as a graded spike.

One step: `s = I`. It has no bias, no threshold and no memory; recordings keep its membrane
potential as 0. With depthwise kernels of ones it is the explicit sum pool, for places where the
pool cannot be folded into the layers that follow it. Source: docs/METHODS.md,
"Layers in both" (average pools stay linear).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toolchain.int_range import IntRange


@dataclass(frozen=True)
class Relay:
    """A relaying population; it has no parameters. See the module for the equation."""

    kind: ClassVar[str] = "RELAY"
    spike_limits: ClassVar[IntRange] = IntRange.signed(8)
    """Recordings keep spikes as int8."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Its integer arrays by name: none."""
        return {}

    @staticmethod
    def step(current: Any) -> Any:
        """One step: the graded spikes sent for a summed current, both (N, ...)."""
        return current
