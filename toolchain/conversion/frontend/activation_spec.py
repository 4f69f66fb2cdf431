"""What an adapter says of an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SIGNED_QCFS = "signed-qcfs"
"""Kind of an activation that is exact for inputs >= 0 only."""


@dataclass(frozen=True)
class ActivationSpec:
    """Parameters of a quantized activation.

    Attributes
    ----------
    threshold:
        `lam`: one number, or one per channel.
    levels:
        Quantization levels L (or Q).
    shift:
        1/2 (QCFS, NQ) or 0 (CQReLU); the initial potential in units of the threshold.
    kind:
        Name of the activation in reports.
    """

    threshold: Any
    levels: int
    shift: float
    kind: str = "adapted"

    def threshold_array(self) -> np.ndarray:
        """`threshold` as float64, (1,) or (C,)."""
        value = self.threshold
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, np.float64).reshape(-1)
