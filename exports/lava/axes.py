"""Between the program's axis order (N, C, H, W) and Lava's (N, W, H, C); vectors stay."""

from __future__ import annotations

import numpy as np

from hw_models.axes import lava_shape


def to_lava(samples: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, W, H, C)."""
    return np.ascontiguousarray(samples.transpose(0, *range(samples.ndim - 1, 0, -1)))


def from_trace(records: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Records (N, T, W*H*C) of a population of `shape` (C, H, W) as (T, N, C, H, W)."""
    shaped = records.reshape(*records.shape[:2], *lava_shape(shape))
    axes = (1, 0, *range(shaped.ndim - 1, 1, -1))
    return np.ascontiguousarray(shaped.transpose(axes))
