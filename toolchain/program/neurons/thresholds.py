"""What the spiking neurons' parameters have in common: a threshold and a start per channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.errors import ProgramError


@dataclass(frozen=True, eq=False)
class ThresholdParameters:
    """Integer parameters of a population of C channels.

    Attributes
    ----------
    threshold:
        int32, (C,), > 0; the neuron fires when `v >= threshold`.
    initial_potential:
        int32, (C,); `v` before local step 1.
    """

    threshold: np.ndarray
    initial_potential: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", frozen_array(self.threshold, np.int32))
        object.__setattr__(
            self, "initial_potential", frozen_array(self.initial_potential, np.int32)
        )
        if self.threshold.ndim != 1 or self.threshold.shape != self.initial_potential.shape:
            raise ProgramError(
                "threshold and initial potential need one value per channel",
                found=f"{self.threshold.shape} and {self.initial_potential.shape}",
            )
        if (self.threshold <= 0).any():
            channel = int(np.argmax(self.threshold <= 0))
            raise ProgramError(
                "a threshold must be positive",
                found=f"{int(self.threshold[channel])} in channel {channel}",
                allowed=">= 1",
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """Its integer arrays by name."""
        return {"threshold": self.threshold, "initial_potential": self.initial_potential}
