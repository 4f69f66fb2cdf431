"""Rows of large weight matrices a few at a time, so that what is made of them stays small."""

from __future__ import annotations

from collections.abc import Iterator

BLOCK = 1 << 19
"""Weights worked on at a time: 4 MiB an array, which the allocator hands out again and again."""


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `rows` rows of `width` weights in order."""
    size = max(1, BLOCK // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
