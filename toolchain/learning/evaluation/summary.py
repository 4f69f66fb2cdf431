"""Numbers that stand for a distribution."""

from __future__ import annotations

import numpy as np

from toolchain.learning.evaluation.schema import Quantiles


def box(values: np.ndarray) -> Quantiles | None:
    """What a box plot shows: 5, 25, 50, 75 and 95 % quantiles and the mean; None if empty."""
    if values.size == 0:
        return None
    low, q1, median, q3, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    return {
        "low": float(low),
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
        "high": float(high),
        "mean": float(values.mean()),
    }
