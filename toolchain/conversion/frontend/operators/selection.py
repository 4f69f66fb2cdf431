"""Views of a tensor as positions among its values, and the layers of ones that compute them.

A position is 1 + the place of a value in C order; 0 stands for a zero that the view put there. So
any chain of views, permutations, slices and paddings is one array, whatever it was made of.
"""

from __future__ import annotations

from math import prod

import numpy as np

from toolchain.program.float_program import Conv2d, Linear
from toolchain.program.synapse import Pair

Sides = tuple[Pair, Pair]
"""Zeros above and below, and left and right."""
NO_PADDING: Sides = ((0, 0), (0, 0))


def is_in_order(index: np.ndarray, base: tuple[int, ...]) -> bool:
    """Whether the positions `index` are all values of a tensor of shape `base`, in C order."""
    return index.size == prod(base) and np.array_equal(
        index.reshape(-1), np.arange(1, index.size + 1)
    )


def is_permuted(index: np.ndarray, base: tuple[int, ...]) -> bool:
    """Whether the positions `index` are all values of a tensor of shape `base`, each once."""
    return index.size == prod(base) and is_in_order(np.sort(index, axis=None), base)


def without_border(index: np.ndarray) -> tuple[np.ndarray, Sides]:
    """Positions (C, H, W) without the rows and columns of zeros around them, and their number."""
    sides: list[Pair] = []
    for axis in (1, 2):
        filled = np.flatnonzero(index.any(axis=(0, 3 - axis)))
        if filled.size == 0:
            return index, NO_PADDING
        first, last = int(filled[0]), int(filled[-1])
        sides.append((first, index.shape[axis] - 1 - last))
    (top, bottom), (left, right) = sides
    rows, columns = index.shape[1] - bottom, index.shape[2] - right
    return index[:, top:rows, left:columns], (sides[0], sides[1])


def selecting_dense(name: str, source: str, index: np.ndarray, base: tuple[int, ...]) -> Linear:
    """The dense layer of ones that selects the positions `index`, (F',), of `source`, (F,)."""
    weight = np.zeros((index.size, prod(base)))
    rows = np.flatnonzero(index)
    weight[rows, index[rows] - 1] = 1.0
    return Linear(name, (source,), weight, np.zeros(index.size))


def selecting_conv(
    name: str, source: str, index: np.ndarray, base: tuple[int, ...]
) -> Conv2d | None:
    """The convolution of ones from `source`, (C, H, W), to its positions `index`, (C', H', W').

    It selects channels, which may be zero altogether, and every n-th row and column, from a first
    one on that may differ between channels.
    None if no convolution without padding computes these positions.
    """
    if index.ndim != 3 or len(base) != 3:
        return None
    filled = np.flatnonzero(index.any(axis=(1, 2)))
    if filled.size == 0:
        return None
    channel, row, column = np.unravel_index(np.maximum(index[filled] - 1, 0), base)
    rows, columns = row[:, :, 0], column[:, 0, :]
    same = (
        index[filled].all()
        and (channel == channel[:, :1, :1]).all()
        and (row == rows[:, :, None]).all()
        and (column == columns[:, None, :]).all()
    )
    taps = [_tap(places, size) for places, size in zip((rows, columns), base[1:], strict=True)]
    if not same or None in taps:
        return None
    (top, tall, down), (left, wide, along) = taps  # type: ignore[misc]
    weight = np.zeros((len(index), base[0], tall, wide))
    weight[filled, channel[:, 0, 0], top, left] = 1.0
    return Conv2d(name, (source,), weight, np.zeros(len(index)), (down, along), (0, 0), (1, 1), 1)


def _tap(places: np.ndarray, size: int) -> tuple[np.ndarray, int, int] | None:
    """Positions of the ones in the kernel, (C',), its length and the stride that visit `places`.

    `places`, (C', n), are positions on an axis. None if they are not equally spaced, in ascending
    order.
    """
    first, steps = places[:, 0], np.diff(places)
    last = int(first.max())
    stride = int(steps[0, 0]) if steps.size else max(size - last, 1)
    if stride < 1 or (steps != stride).any():
        return None
    length = max(last + 1, size - stride * places.shape[1] + 1)
    return first, length, stride
