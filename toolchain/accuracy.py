"""Accuracy as integer counts, so that it can be stored, added and given an interval.

Two networks on the same samples are compared sample by sample: `Flips`.
"""

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


@dataclass(frozen=True)
class Flips:
    """Samples, of `total`, that only one of two networks has right.

    Attributes
    ----------
    won, lost:
        Samples that only the first, and only the second network has right.
    """

    won: int
    lost: int
    total: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Flips:
        """Of two bool (N,): which samples each network has right."""
        return cls(int((first & ~second).sum()), int((second & ~first).sum()), len(first))

    @property
    def difference(self) -> float:
        """Accuracy of the first network less that of the second, -1 .. 1."""
        return (self.won - self.lost) / self.total

    @property
    def p_value(self) -> float:
        """Two-sided, of networks that are equally good: exact test of McNemar (1947)."""
        from scipy.stats import binomtest  # takes half a second

        flips = self.won + self.lost
        return float(binomtest(self.won, flips).pvalue) if flips else 1.0

    def __str__(self) -> str:
        return f"{100 * self.difference:+.2f} (+{self.won} -{self.lost}, p = {self.p_value:.2g})"


def interval_of(described: Mapping[str, Any]) -> str:
    """The 95 % interval as text, from the result of `describe`; a dash if there is none."""
    low, high = described["low"], described["high"]
    return "-" if low is None else f"{100 * low:.2f} .. {100 * high:.2f} %"
