"""Equal columns of weights, which a folded average pool produces."""

from __future__ import annotations

import numpy as np

from toolchain.compiled import compiled
from toolchain.conversion.quantization.row_blocks import Rows, of_blocks

SEED, MULTIPLIER = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
"""Odd constants of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""


def distinct_columns(weight: Rows) -> tuple[np.ndarray, np.ndarray] | None:
    """First index of each set of equal columns of float64 (C, K), in order, and the set sizes.

    int64 (U,) each; None if no two columns are equal.
    """
    _, first, inverse = np.unique(_sums(weight), return_index=True, return_inverse=True)
    if len(first) == weight.shape[1]:
        return None

    def are_equal(part: slice) -> bool:
        return bool(_equal(weight[part], first[inverse]))

    if not all(of_blocks(are_equal, *weight.shape)):
        return None
    order = np.argsort(first)
    return first[order], np.bincount(inverse)[order]


def _sums(weight: Rows) -> np.ndarray:
    """Sum of the bits of each column modulo 2^64, with a different factor for every row."""

    def work(part: slice) -> np.ndarray:
        sums = np.zeros(weight.shape[1], np.uint64)
        factor = SEED * pow(MULTIPLIER, part.start, 1 << 64) % (1 << 64)
        words = np.ascontiguousarray(weight[part], np.float64).view(np.uint64)
        _add_up(words, np.uint64(factor), sums)
        return sums

    result: np.ndarray = np.stack(of_blocks(work, *weight.shape)).sum(axis=0, dtype=np.uint64)
    return result


@compiled
def _add_up(words, factor, sums):  # type: ignore[no-untyped-def]
    for c in range(words.shape[0]):
        row = words[c]
        for k in range(row.shape[0]):
            sums[k] += row[k] * factor
        factor = factor * np.uint64(MULTIPLIER)


@compiled
def _equal(weight, other):  # type: ignore[no-untyped-def]
    """Whether each column k equals the column `other[k]`, bit by bit or as numbers."""
    for c in range(weight.shape[0]):
        row = weight[c]
        for k in range(row.shape[0]):
            if row[k] != row[other[k]]:
                return False
    return True
