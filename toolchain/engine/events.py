"""Sums of planes event by event: each spike adds its weights, and silent sites cost nothing.

Most neurons are silent in most steps. Adding the 8-bit weights of the spikes alone is faster than
convolving whole planes, even in int8, if fewer than about a quarter of the sites have a spike.
"""

from __future__ import annotations

from functools import cached_property
from math import prod

import numpy as np

from toolchain.engine.event_loops import Arriving, Weighted, put_sums
from toolchain.engine.simd import PAIRED, WIDTHS, paired
from toolchain.engine.spike_encoding import coded_offset
from toolchain.int_range import IntRange
from toolchain.threads import allowed_threads, share

OF_VECTOR = 0.45
"""Estimated time to add one vector of weights, in nanoseconds."""
OF_RUN = 7.0
"""Estimated time to begin a row of a kernel, in nanoseconds."""
OF_SITE = 0.15
"""Estimated time to read a site, in nanoseconds.

`benchmarks/simulator_speed.py` measures the whole engine.
"""
COLUMNS = (4, 2)
"""Numbers of neighbouring outputs summed together if they have few channels, the best first."""
FEW_CHANNELS = 128
"""Most outputs summed together in this way."""
CACHED = 1 << 19
"""Bytes of weights that stay in a core's cache while planes are processed."""
SUMS = 1 << 16
"""Sums of planes between two changes of weights."""
LINE = 64
"""Bytes of a cache line."""

Pair = tuple[int, int]


class EventSum:
    """Sums of an ungrouped convolution, event by event.

    Parameters
    ----------
    weight:
        8-bit integers, (C_out, K_h, K_w, C_in).
    geometry:
        Stride, padding and dilation, (vertical, horizontal) each.
    plane:
        (H, W, C_in) of the source.
    spikes:
        Range of the spikes.

    Notes
    -----
    If outputs have few channels, neighbours in a row are summed together: a convolution with B
    times the stride whose outputs are those of B columns, with zero weights where a column takes
    nothing.
    """

    def __init__(
        self,
        weight: np.ndarray,
        geometry: tuple[Pair, Pair, Pair],
        plane: tuple[int, int, int],
        spikes: IntRange,
    ) -> None:
        stride, padding, dilation = geometry
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[1:3], strict=True)]
        height, width = (
            (n + 2 * p - r) // s + 1
            for n, p, r, s in zip(plane[:2], padding, reach, stride, strict=True)
        )
        columns = _columns(len(weight), width) if dilation[1] == 1 else 1
        self._given = weight
        self._columns = columns
        self._stride, self._padding, self._dilation = stride, padding, dilation
        self._kernel = (weight.shape[1], weight.shape[2] + (columns - 1) * stride[1])
        self._plane = plane
        self._out = (height, width // columns, columns * len(weight))
        self._widths = _widths(self._out[2])
        self._signs = 2 if spikes.low < 0 else 1
        self._most = max(-min(spikes.low, 0), spikes.high)
        self._silence = coded_offset(spikes) or 0
        self._weighted: Weighted | None = None

    def limit(self, time: float) -> float:
        """Largest spike count of a plane that takes less than `time`, nanoseconds in one thread.

        0 if the outputs meet padding only, and no site of the plane.
        """
        runs = prod(self._out[:2]) * len(self._widths) * self._signs * self._kernel[0]
        fixed = OF_RUN * runs + OF_SITE * prod(self._plane) * self._signs
        if not self.vectors_per_spike:
            return 0.0
        return (time - fixed) / (self.vectors_per_spike * OF_VECTOR)

    @cached_property
    def vectors_per_spike(self) -> float:
        """Number of vectors of `PAIRED` weights that a spike adds, on average over all sites."""
        stride = (self._stride[0], self._stride[1] * self._columns)
        sides = (self._plane, self._kernel, self._out, stride, self._padding, self._dilation)
        met = _meetings(*(side[0] for side in sides)) * _meetings(*(side[1] for side in sides))
        return met / prod(self._plane[:2]) * int(self._widths.sum()) / PAIRED

    def put(
        self,
        planes: np.ndarray,
        numbers: np.ndarray,
        which: np.ndarray,
        counts: np.ndarray,
        total: np.ndarray,
    ) -> None:
        """Write the sums of some planes into `total`, int32 (k, H_out, W_out, C_out).

        `planes`, uint8 (m, H, W, C), are all planes; k of them have the `numbers`, int64 (k,),
        and `counts` spikes; of those, the planes in `which` are summed. The first
        ones should have the most spikes: threads take them in turn.
        """
        if self._weighted is None:
            self._weighted = self._lay_out()
        threads = allowed_threads()
        size = max(1, SUMS // min(self._out[2], max(WIDTHS)) // prod(self._out[:2]))
        groups = -(-len(which) // size)
        groups = min(len(which), -(-groups // threads) * threads)
        arriving = Arriving(planes, self._silence, self._signs, self._most, numbers, counts)
        weighted, into = self._weighted, total.reshape(len(total), *self._out)
        share(lambda g: put_sums(arriving, which[g::groups], weighted, into), range(groups))

    def _lay_out(self) -> Weighted:
        weight = _of_columns(self._given, self._columns, self._stride[1])
        stride = (self._stride[0], self._stride[1] * self._columns)
        kernel, stride, padding, dilation = np.array(
            (self._kernel, stride, self._padding, self._dilation), np.int64
        )
        rows = max(1, CACHED // (self._kernel[1] * self._plane[2] * int(self._widths[0])))
        words = in_widths(weight, self._widths)
        return Weighted(words, self._widths, kernel, stride, padding, dilation, rows)


def _meetings(
    size: int, kernel: int, outputs: int, stride: int, padding: int, dilation: int
) -> int:
    """Along one axis, the number of pairs of an output and a kernel position inside the plane."""
    places = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return int(((places >= 0) & (places < size)).sum())


def _columns(outputs: int, across: int) -> int:
    """Number of neighbouring outputs summed together."""
    fitting = (n for n in COLUMNS if n * outputs <= FEW_CHANNELS and across % n == 0)
    return next(fitting, 1)


def _of_columns(weight: np.ndarray, columns: int, stride: int) -> np.ndarray:
    """Weights, int8, of a convolution whose outputs are those of several neighbours in order."""
    outputs, rows, across, inputs = weight.shape
    spread = np.zeros((columns, outputs, rows, across + (columns - 1) * stride, inputs), np.int8)
    for column in range(columns):
        spread[column, :, :, column * stride : column * stride + across] = weight
    return spread.reshape(columns * outputs, *spread.shape[2:])


def _widths(outputs: int) -> np.ndarray:
    """Sizes of the groups of outputs summed together, int64; the last may be padded."""
    widths, left = [], outputs
    while left > 0:
        fitting = [width for width in WIDTHS if width <= left]
        widths.append(max(fitting, default=min(WIDTHS)))
        left -= widths[-1]
    return np.array(widths, np.int64)


def in_widths(weight: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Weights, (C_out, K_h, K_w, C_in), as in `Weighted`, aligned with a cache line."""
    size = int(widths.sum()) * weight[0].size // 2
    memory = np.empty(size + LINE // 2, np.int16)
    start = -memory.ctypes.data % LINE // 2
    laid_out = memory[start : start + size]
    first = place = 0
    for width in widths:
        part = np.zeros((*weight.shape[1:], width), np.int8)
        part[..., : len(weight) - first] = weight[first : first + width].transpose(1, 2, 3, 0)
        words = paired(part)
        laid_out[place : place + words.size] = words.ravel()
        first, place = first + width, place + words.size
    return laid_out
