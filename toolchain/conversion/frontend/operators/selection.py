"""Views of a tensor as positions among its values, and the layers of ones that compute them.

A position is 1 + the place of a value in C order; 0 stands for a zero that the view put there. So
any chain of views, permutations, slices and paddings is one array, whatever it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    one on that may differ between channels (a pixel unshuffle); or it repeats each of them n times,
    perhaps from another channel each time (a pixel shuffle). None if no convolution computes these
    positions.
    """
    if index.ndim != 3 or len(base) != 3:
        return None
    filled = np.flatnonzero(index.any(axis=(1, 2)))
    if filled.size == 0 or not index[filled].all():
        return None
    channel, row, column = np.unravel_index(index[filled] - 1, base)
    down, across = _taken(row[:, :, 0], base[1]), _taken(column[:, 0, :], base[2])
    if down is None or across is None:
        return None
    each = np.arange(len(filled))[:, None, None]
    taps = (each, down.phases[:, :, None], across.phases[:, None, :])
    by_tap = np.full((len(filled), down.length, across.length), -1)
    by_tap[taps] = channel
    same = (
        (row == row[:, :, :1]).all()
        and (column == column[:, :1, :]).all()
        and (channel == by_tap[taps]).all()
    )
    if not same:
        return None
    alone = len(filled) == len(index) == base[0]
    if alone and ((by_tap < 0) | (by_tap == filled[:, None, None])).all():
        weight, groups = (by_tap >= 0).astype(np.float64)[:, None], len(index)
    else:
        weight, groups = np.zeros((len(index), base[0], down.length, across.length)), 1
        place, *tap = np.nonzero(by_tap >= 0)
        weight[filled[place], by_tap[place, tap[0], tap[1]], tap[0], tap[1]] = 1.0
    return Conv2d(
        name,
        (source,),
        weight,
        np.zeros(len(index)),
        (down.stride, across.stride),
        (down.padding, across.padding),
        (1, 1),
        groups,
        (down.upsample, across.upsample),
        (down.overhang, across.overhang),
    )


@dataclass(frozen=True, eq=False)
class _Axis:
    """A kernel that takes one value, along one axis.

    `phases` is the tap with which each output takes its value, int64 (C', outputs); `length` the
    number of taps.
    """

    phases: np.ndarray
    length: int
    stride: int
    upsample: int = 1
    padding: int = 0
    overhang: int = 0


def _taken(places: np.ndarray, size: int) -> _Axis | None:
    """The kernel that visits `places`, (C', n), of an axis; None if they are not regular."""
    first, count = places[:, :1], places.shape[1]
    steps = np.diff(places)
    if not steps.all():
        return _repeated(places, size)
    last = int(first.max())
    stride = int(steps[0, 0]) if steps.size else max(size - last, 1)
    if stride < 1 or (steps != stride).any():
        return None
    length = max(last + 1, size - stride * count + 1)
    return _Axis(np.broadcast_to(first, places.shape), length, stride)


def _repeated(places: np.ndarray, size: int) -> _Axis | None:
    """The kernel that visits each place n times; the first and the last perhaps less often."""
    row, first, count = places[0], int(places[0, 0]), places.shape[1]
    runs = np.diff(np.flatnonzero(np.diff(row, prepend=-1, append=-1)))
    n = int(runs.max())
    left_out = n - int(runs[0])
    number = np.arange(count) + left_out
    if (places != first + number // n).any():
        return None
    # Output y meets source i at i n with the taps y + start .. y + start + n - 1 of the plane.
    start = first * n + left_out - n + 1
    zeros, padding = max(start, 0), max(-start, 0)
    end = count - 1 + zeros + n - (size - 1) * n - 1 - padding
    length = zeros + n + max(-end, 0)
    phases = np.broadcast_to(zeros + n - 1 - number % n, places.shape)
    return _Axis(phases, length, 1, n, padding, max(end, 0) - padding)
