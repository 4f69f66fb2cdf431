"""Processing of large weight matrices in blocks of rows, in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

BLOCK = 1 << 19
"""Weights per block: 4 MiB per array, which the allocator can reuse."""
Result = TypeVar("Result")


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `rows` rows of `width` weights in order."""
    size = max(1, BLOCK // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def in_threads(work: Callable[[slice], Result], blocks: Sequence[slice]) -> list[Result]:
    """The results of `work` on each slice, in order, with one thread per processor."""
    threads = min(processors(), len(blocks))
    if threads < 2:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))


def of_blocks(work: Callable[[slice], Result], rows: int, width: int) -> list[Result]:
    """The results of `work` on each of `row_blocks`, see `in_threads`."""
    return in_threads(work, list(row_blocks(rows, width)))


def apply_in_blocks(operation: np.ufunc, values: np.ndarray, by: np.ndarray | float) -> np.ndarray:
    """Apply `operation(values, by)` to float64 arrays that broadcast to the shape of `values`."""
    result = np.empty(values.shape)
    other = np.broadcast_to(by, values.shape)
    rows = len(values)

    def work(block: slice) -> None:
        operation(values[block], other[block], out=result[block])

    of_blocks(work, rows, values.size // max(rows, 1))
    return result
