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

    It selects channels, which may be zero altogether, and every n-th row and column from a first
    one on that may differ between channels, or each of them n times. None if no convolution
    computes these positions.
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
    down = _taken(rows, base[1])
    across = _taken(columns, base[2])
    if not same or down is None or across is None:
        return _interleaving(name, source, index, base)
    taps = down.taps[:, :, None] * across.taps[:, None, :]
    taken = channel[:, 0, 0]
    if len(index) == base[0] and np.array_equal(taken, np.arange(base[0])):
        weight, groups = taps[:, None], len(index)
    else:
        weight, groups = np.zeros((len(index), base[0], *taps.shape[1:])), 1
        weight[filled, taken] = taps
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


def _interleaving(
    name: str, source: str, index: np.ndarray, base: tuple[int, ...]
) -> Conv2d | None:
    """The convolution to pixels that lay in channels, as those of a pixel shuffle; None if not so.

    Output row `r i + p` holds source row i. It meets it, spread out by r, at tap `r - 1 - p`.
    """
    down, across = (size // before for size, before in zip(index.shape[1:], base[1:], strict=True))
    if not index.all() or index.shape[1:] != (base[1] * down, base[2] * across):
        return None
    plane = np.arange(base[1] * base[2]).reshape(base[1:])
    weight = np.zeros((len(index), base[0], down, across))
    for i, j in np.ndindex(down, across):
        part = index[:, i::down, j::across]
        channel = (part[:, 0, 0] - 1) // plane.size
        if not np.array_equal(part - 1, channel[:, None, None] * plane.size + plane):
            return None
        weight[np.arange(len(index)), channel, down - 1 - i, across - 1 - j] = 1.0
    padding, spread = (down - 1, across - 1), (down, across)
    bias = np.zeros(len(index))
    return Conv2d(name, (source,), weight, bias, (1, 1), padding, (1, 1), 1, spread)


@dataclass(frozen=True, eq=False)
class _Axis:
    """Kernels of ones and zeros along one axis, (C', K), and their geometry."""

    taps: np.ndarray
    stride: int
    upsample: int = 1
    padding: int = 0
    overhang: int = 0


def _taken(places: np.ndarray, size: int) -> _Axis | None:
    """The kernels that visit `places`, (C', n), of an axis; None if they are not regular."""
    first, count = places[:, 0], places.shape[1]
    steps = np.diff(places)
    if not steps.all():
        return _repeated(places, size)
    last = int(first.max())
    stride = int(steps[0, 0]) if steps.size else max(size - last, 1)
    if stride < 1 or (steps != stride).any():
        return None
    taps = np.zeros((len(places), max(last + 1, size - stride * count + 1)))
    taps[np.arange(len(places)), first] = 1.0
    return _Axis(taps, stride)


def _repeated(places: np.ndarray, size: int) -> _Axis | None:
    """The kernel that visits each place n times; the first and the last perhaps less often."""
    channels, count = places.shape
    row, first = places[0], int(places[0, 0])
    runs = np.diff(np.flatnonzero(np.diff(row, prepend=-1, append=-1)))
    n = int(runs.max())
    left_out = n - int(runs[0])
    if (places != first + (np.arange(count) + left_out) // n).any():
        return None
    # Output y meets source i at i n with the taps y + start .. y + start + n - 1 of the plane.
    start = first * n + left_out - n + 1
    zeros, padding = max(start, 0), max(-start, 0)
    end = count - 1 + zeros + n - (size - 1) * n - 1 - padding
    taps = np.zeros((channels, zeros + n + max(-end, 0)))
    taps[:, zeros : zeros + n] = 1.0
    return _Axis(taps, 1, n, padding, max(end, 0) - padding)
