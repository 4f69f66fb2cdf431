"""Equal columns of weights, which a folded average pool produces."""

from __future__ import annotations

import numpy as np

from toolchain.compiled import compiled


def distinct_columns(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """First index of each set of equal columns of float64 (C, K), in order, and the set sizes.

    int64 (U,) each; None if no two columns are equal.
    """
    _, first, inverse = np.unique(_sums(weight), return_index=True, return_inverse=True)
    if len(first) == weight.shape[1] or not _equal(weight, first[inverse]):
        return None
    order = np.argsort(first)
    return first[order], np.bincount(inverse)[order]


@compiled
def _add_up(words, sums):  # type: ignore[no-untyped-def]
    """Sum of the bits of each column modulo 2^64, with a different factor for every row."""
    factor = np.uint64(0x9E3779B97F4A7C15)
    for c in range(words.shape[0]):
        row = words[c]
        for k in range(row.shape[0]):
            sums[k] += row[k] * factor
        factor = factor * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(2)


def _sums(weight: np.ndarray) -> np.ndarray:
    sums = np.zeros(weight.shape[1], np.uint64)
    _add_up(weight.view(np.uint64), sums)
    return sums


@compiled
def _equal(weight, other):  # type: ignore[no-untyped-def]
    """Whether each column k equals the column `other[k]`, bit by bit or as numbers."""
    for c in range(weight.shape[0]):
        row = weight[c]
        for k in range(row.shape[0]):
            if row[k] != row[other[k]]:
                return False
    return True
