"""Sums of planes event by event: each spike adds its weights, and silence costs nothing.

Most neurons are silent in most steps. Adding up 8-bit weights of the spikes alone is faster than
convolving whole planes, even in int8, where fewer than a quarter or so of the sites have one.
"""

from __future__ import annotations

from math import prod

import numba
import numpy as np

from toolchain.engine.event_loops import Arriving, Weighted, put_sums
from toolchain.engine.neuron_layout import allowed_threads
from toolchain.engine.simd import PAIRED, WIDTHS, paired
from toolchain.engine.spike_encoding import coded_offset
from toolchain.int_range import IntRange

OF_VECTOR = 0.45
OF_RUN = 7.0
OF_SITE = 0.15
"""Nanoseconds to add one vector of weights, to begin a row of a kernel, and to look at a site, as
measured on an AMD EPYC (Zen 5)."""
COLUMNS = (4, 2)
"""How many neighbouring outputs go at once where they have few channels, the best first."""
FEW_CHANNELS = 128
"""Outputs that go at once so, at most."""
CACHED = 1 << 19
"""Bytes of weights that stay in a core's cache while planes pass by."""
SUMS = 1 << 16
"""Sums of the planes that pass by between two changes of weights."""
LINE = 64
"""Bytes of a line of the cache."""

Pair = tuple[int, int]


class EventSum:
    """Sums of an ungrouped convolution, event by event.

    Parameters
    ----------
    weight:
        Integers of 8 bits, (C_out, K_h, K_w, C_in).
    geometry:
        Stride, padding and dilation, of height and width each.
    plane:
        (H, W, C_in) of what arrives.
    spikes:
        Its range.

    Notes
    -----
    Where outputs have few channels, neighbours in a row are summed at once: a convolution of B
    times the stride whose outputs are those of B columns, with zeros where they take nothing.
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
        """Spikes of a plane up to which this takes less than `time`, nanoseconds in one thread.

        0 where no output meets a site of the plane, only padding.
        """
        runs = prod(self._out[:2]) * len(self._widths) * self._signs * self._kernel[0]
        fixed = OF_RUN * runs + OF_SITE * prod(self._plane) * self._signs
        stride = (self._stride[0], self._stride[1] * self._columns)
        sides = (self._plane, self._kernel, self._out, stride, self._padding, self._dilation)
        met = _meetings(*(side[0] for side in sides)) * _meetings(*(side[1] for side in sides))
        if not met:
            return 0.0
        vectors = met / prod(self._plane[:2]) * int(self._widths.sum()) / PAIRED
        return (time - fixed) / (vectors * OF_VECTOR)

    def put(
        self,
        planes: np.ndarray,
        numbers: np.ndarray,
        which: np.ndarray,
        counts: np.ndarray,
        total: np.ndarray,
    ) -> None:
        """Put the sums of some planes into int32 (k, H_out, W_out, C_out).

        `planes`, uint8 (m, H, W, C), are all there are; k of them have the `numbers`, int64 (k,),
        and `counts` spikes; of those, the ones in `which` are summed. Those that come
        first should have the most spikes: work is dealt out in turns.
        """
        if self._weighted is None:
            self._weighted = self._lay_out()
        threads = allowed_threads()
        size = max(1, SUMS // min(self._out[2], max(WIDTHS)) // prod(self._out[:2]))
        groups = -(-len(which) // size)
        groups = min(len(which), -(-groups // threads) * threads)
        arriving = Arriving(planes, self._silence, self._signs, self._most, numbers, counts)
        numba.set_num_threads(threads)
        put_sums(arriving, which, groups, self._weighted, total.reshape(len(total), *self._out))

    def _lay_out(self) -> Weighted:
        weight = _of_columns(self._given, self._columns, self._stride[1])
        stride = (self._stride[0], self._stride[1] * self._columns)
        kernel, stride, padding, dilation = np.array(
            (self._kernel, stride, self._padding, self._dilation), np.int64
        )
        rows = max(1, CACHED // (self._kernel[1] * self._plane[2] * int(self._widths[0])))
        words = _in_widths(weight, self._widths)
        return Weighted(words, self._widths, kernel, stride, padding, dilation, rows)


def _meetings(
    size: int, kernel: int, outputs: int, stride: int, padding: int, dilation: int
) -> int:
    """Along one axis, pairs of an output and a place of the kernel that lies in the plane."""
    places = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return int(((places >= 0) & (places < size)).sum())


def _columns(outputs: int, across: int) -> int:
    """How many neighbouring outputs are summed at once."""
    fitting = (n for n in COLUMNS if n * outputs <= FEW_CHANNELS and across % n == 0)
    return next(fitting, 1)


def _of_columns(weight: np.ndarray, columns: int, stride: int) -> np.ndarray:
    """Weights of a convolution whose outputs are those of several neighbours, one by one; int8."""
    outputs, rows, across, inputs = weight.shape
    spread = np.zeros((columns, outputs, rows, across + (columns - 1) * stride, inputs), np.int8)
    for column in range(columns):
        spread[column, :, :, column * stride : column * stride + across] = weight
    return spread.reshape(columns * outputs, *spread.shape[2:])


def _widths(outputs: int) -> np.ndarray:
    """How many outputs go at once, one after the other; the last may be filled up. int64."""
    widths, left = [], outputs
    while left > 0:
        fitting = [width for width in WIDTHS if width <= left]
        widths.append(max(fitting, default=min(WIDTHS)))
        left -= widths[-1]
    return np.array(widths, np.int64)


def _in_widths(weight: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """See `Weighted`; the first word begins where a line of the cache does."""
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
