"""Conversion of the program's axes (..., C, H, W) to Lava's (..., W, H, C); vectors stay."""

from __future__ import annotations

import numpy as np


def to_lava(samples: np.ndarray, leading: int = 1) -> np.ndarray:
    """An array (N, C, H, W) as (N, W, H, C); of its axes, the `leading` first ones stay."""
    axes = range(samples.ndim)
    return np.ascontiguousarray(samples.transpose(*axes[:leading], *reversed(axes[leading:])))
