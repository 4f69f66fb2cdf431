"""Between the program's axis order (N, C, H, W) and Lava's (N, W, H, C); vectors stay."""

from __future__ import annotations

import numpy as np


def to_lava(samples: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N, W, H, C)."""
    return np.ascontiguousarray(samples.transpose(0, *range(samples.ndim - 1, 0, -1)))
