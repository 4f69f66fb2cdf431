"""Processing of large weight matrices in blocks of rows, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from toolchain.threads import share

BLOCK = 1 << 19
"""Weights per block: 4 MiB per array, which the allocator can reuse."""
Result = TypeVar("Result")


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `rows` rows of `width` weights in order."""
    size = max(1, BLOCK // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def of_blocks(work: Callable[[slice], Result], rows: int, width: int) -> list[Result]:
    """The results of `work` on each of `row_blocks`, in order."""
    return share(work, list(row_blocks(rows, width)))


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """The matrix `operation(weight, by)`, float64 (C, n), computed where rows of it are read.

    Attributes
    ----------
    weight:
        (C, n).
    operation:
        `np.multiply` or `np.divide`.
    by:
        Broadcasts to (C, n).
    """

    weight: Rows
    operation: np.ufunc
    by: np.ndarray | float

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, n)."""
        return self.weight.shape

    def __getitem__(self, part: slice) -> np.ndarray:
        """The rows in `part`, as a new array."""
        result: np.ndarray = self.operation(
            self.weight[part], np.broadcast_to(self.by, self.shape)[part]
        )
        return result

    def __array__(self, *how: Any, **more: Any) -> np.ndarray:
        """All rows."""
        return np.asarray(self[:], *how)


Rows = np.ndarray | ScaledRows
"""Rows of weights, float64 (C, n)."""


def magnitudes(rows: Rows) -> np.ndarray:
    """Largest magnitude of each row, float64 (C,)."""

    def work(part: slice) -> np.ndarray:
        few = rows[part]
        result: np.ndarray = np.maximum(np.abs(few.max(axis=1)), np.abs(few.min(axis=1)))
        return result

    return np.concatenate(of_blocks(work, *rows.shape))
