"""Average pools as sums of spikes: windows of different divisors become whole numbers of one unit.

With L the least common multiple of the divisors, a window of divisor d adds its spikes L / d times,
in units of 1 / L of a spike. Divisors are products of one number per row and one per column, so the
weights are too. Along an axis, the windows are divided into bands:

- one band holds every window, at the weight of the largest divisor;
- a band for each run of windows of a smaller divisor, at the weight that they lack.

Windows that are not equally far from each other (adaptive pools) have bands for their runs only.
A weight is then a sum over the pairs of bands that hold its row and its column. A pair of bands
that hold all windows is a convolution of the source. Of any other pair the windows are summed by
themselves, and their sums placed in the image of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import lcm

import numpy as np

from toolchain.program.float_program import AvgPool2d, Conv2d, Shape
from toolchain.program.synapse import Pair

WindowSums = tuple[Conv2d, Conv2d | None]
"""A convolution of the pool's source, and one that places its values among the pool's windows.

None instead of the second where the first has the pool's shape.
"""


@dataclass(frozen=True)
class _Band:
    """Windows along one axis, `count` of them from the window `first` on.

    The first begins at row or column `start` of the source, each is `size` long, and they are
    `stride` apart. `weight` is added to that of each.
    """

    first: int
    count: int
    start: int
    size: int
    stride: int
    weight: Fraction


def window_sums(pool: AvgPool2d, source: Shape, pooled: Shape) -> tuple[int, list[WindowSums]]:
    """L, and the parts that add up to L times the mean; all weights are whole numbers.

    `source` and `pooled` are the shapes (C, H, W) before and after the pool. A pool of equal
    windows has one part, of ones.
    """
    channels, *plane = source
    axes = [_bands(pool, size, pooled[1 + axis], axis) for axis, size in enumerate(plane)]
    pairs = list(product(*axes))
    unit = lcm(*((down.weight * across.weight).denominator for down, across in pairs))
    parts: list[WindowSums] = []
    for index, (down, across) in enumerate(pairs):
        sides = [_geometry(band, size) for band, size in zip((down, across), plane, strict=True)]
        taps, stride, begin, end = zip(*sides, strict=True)
        kernel = int(down.weight * across.weight * unit) * np.outer(*taps)
        sums = _depthwise(f"{pool.name}[{index}]", channels, kernel, stride, begin, end)
        sums = replace(sums, sources=pool.sources)
        above, left = down.first, across.first
        below, right = pooled[1] - above - down.count, pooled[2] - left - across.count
        if not any((above, left, below, right)):
            parts.append((sums, None))
            continue
        place = _depthwise(
            f"{sums.name}[0]", channels, np.ones((1, 1)), (1, 1), (above, left), (below, right)
        )
        parts.append((sums, replace(place, sources=(sums.name,))))
    return unit, parts


def windows_of(pool: AvgPool2d, size: int, count: int, axis: int) -> np.ndarray:
    """First and behind-last row (axis 0) or column of each window, and its divisor.

    int64, (3, count), for `size` rows before and `count` behind the pool. Windows may begin and end
    outside the image.
    """
    index = np.arange(count)
    if pool.adaptive:  # as torch divides an axis
        starts, stops = index * size // count, -(-(index + 1) * size // count)
        return np.stack([starts, stops, stops - starts])
    starts = index * pool.stride[axis] - pool.padding[axis]
    stops = starts + pool.kernel[axis]
    outside = pool.padding[axis] if pool.count_padding else 0
    counted = np.minimum(stops, size + outside) - np.maximum(starts, -outside)
    return np.stack([starts, stops, counted])


def _bands(pool: AvgPool2d, size: int, count: int, axis: int) -> list[_Band]:
    """The bands of `count` windows over `size` rows (axis 0) or columns."""
    starts, stops, divisors = windows_of(pool, size, count, axis).tolist()
    bands, common = [], Fraction(0)
    if not pool.adaptive:
        common = Fraction(1, max(divisors))
        bands.append(_Band(0, count, starts[0], stops[0] - starts[0], pool.stride[axis], common))
    first = 0
    while first < count:
        last = first + 1
        while last < count and _continues(starts, divisors, first, last):
            last += 1
        start, stop, weight = starts[first], stops[first], Fraction(1, divisors[first]) - common
        if last == first + 1:  # a kernel as small as possible, and no other window behind it
            start, stop = max(start, 0), min(stop, size)
            stride = size - stop + 1
        else:
            stride = starts[first + 1] - start
        if weight:
            bands.append(_Band(first, last - first, start, stop - start, stride, weight))
        first = last
    return bands


def _continues(starts: list[int], divisors: list[int], first: int, window: int) -> bool:
    """Whether a window goes on with a run: the same divisor, and as far from the one before."""
    distance = starts[first + 1] - starts[first]
    even = starts[window] - starts[window - 1] == distance > 0  # 0: an adaptive pool repeats it
    return even and divisors[window] == divisors[first]


def _geometry(band: _Band, size: int) -> tuple[np.ndarray, int, int, int]:
    """Taps, stride, and zeros before and behind `size` values that give the windows of a band."""
    begin, lead = max(-band.start, 0), max(band.start, 0)
    taps = np.repeat([0, 1], [lead, band.size])
    needed = (band.count - 1) * band.stride + len(taps) - size - begin
    if needed <= begin < needed + band.stride:
        return taps, band.stride, begin, begin
    if needed <= -band.stride:  # values behind the last window, which would make others
        taps = np.append(taps, np.zeros(-needed, taps.dtype))
    return taps, band.stride, begin, max(needed, 0)


def _depthwise(
    name: str, channels: int, kernel: np.ndarray, stride: Pair, begin: Pair, end: Pair
) -> Conv2d:
    weight = np.broadcast_to(kernel, (channels, 1, *kernel.shape))
    overhang = (end[0] - begin[0], end[1] - begin[1])
    return Conv2d(
        name, (), weight, np.zeros(channels), stride, begin, (1, 1), channels, (1, 1), overhang
    )
