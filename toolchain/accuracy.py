"""Accuracy as integer counts, so that it can be stored, added and given an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


class Correct(TypedDict):
    """An accuracy with its 95 % interval, as JSON."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `total` samples; a prediction is the largest output, lowest index on ties."""

    correct: int
    total: int

    @classmethod
    def of(cls, outputs: np.ndarray, labels: np.ndarray) -> Accuracy:
        """The accuracy of outputs (N, K) for labels (N,)."""
        return cls(int((outputs.argmax(axis=1) == labels).sum()), len(labels))

    @property
    def fraction(self) -> float:
        """Share of correct predictions, 0 .. 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % score interval of the fraction (Wilson, 1927)."""
        n, p, z = self.total, self.fraction, Z95
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return float(middle - half), float(middle + half)

    def describe(self) -> Correct:
        """The accuracy and its interval as JSON."""
        low, high = self.interval
        return {
            "correct": self.correct,
            "total": self.total,
            "accuracy": self.fraction,
            "low": low,
            "high": high,
        }


def interval_of(described: Mapping[str, Any]) -> str:
    """The 95 % interval as text, from the result of `describe`; a dash if there is none."""
    low, high = described["low"], described["high"]
    return "-" if low is None else f"{100 * low:.2f} .. {100 * high:.2f} %"
