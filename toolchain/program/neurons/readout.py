"""Readout: a non-spiking integer accumulator, `v += I` from 0.

Its value after the last local step is the logit, in units of `scale` per wake step: the
network's real output is `scale * v / wake_steps`. One scale for all channels, since a
per-channel one would change the argmax; ties go to the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toolchain.errors import ProgramError


@dataclass(frozen=True)
class Readout:
    """Parameters of a readout population: `real = scale * int`."""

    scale: float

    kind: ClassVar[str] = "READOUT"

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < float("inf"):
            raise ProgramError("a readout scale must be positive and finite", found=self.scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """Its integer arrays by name: none."""
        return {}

    @staticmethod
    def step(accumulator: Any, current: Any) -> Any:
        """One step: the accumulator, (N, K), after adding `current`, (N, K)."""
        return accumulator + current
