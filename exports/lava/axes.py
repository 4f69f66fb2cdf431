"""Conversion of the program's axes (N, C, H, W) to Lava's (N, W, H, C); vectors stay unchanged."""

from __future__ import annotations

import numpy as np


def to_lava(samples: np.ndarray) -> np.ndarray:
    """An array (N, C, H, W) as (N, W, H, C)."""
    return np.ascontiguousarray(samples.transpose(0, *range(samples.ndim - 1, 0, -1)))
