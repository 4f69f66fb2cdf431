"""Compiled loops that list the spikes of planes, and the weights that each output sums.

A spike is the index x * C + c of its site in a row of the plane (H, W, C). The spikes that an
output takes from one row are then consecutive, and so are their weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toolchain.compiled import compiled, inlined, part_of_another
from toolchain.engine.simd import (
    MOST_EVENTS,
    PAIRED,
    POSITIONS,
    POSITIONS_OF,
    SOURCE,
    SPREAD,
    add_weights,
    put_eight,
    put_sixteen,
)

_ONES = 0x0101010101010101
SLACK = 16
"""Entries that are copied at once; so many may be written behind the last of a list."""


class Weighted(NamedTuple):
    """Weights of an ungrouped convolution, and their layout.

    Attributes
    ----------
    weight:
        int16 words, for groups of outputs of the sizes `widths`, (K_h, K_w, C_in, width) each.
    kernel, stride, padding, dilation:
        Vertical and horizontal, int64 (2,).
    rows:
        Number of kernel rows whose weights fit the cache together.
    """

    weight: np.ndarray
    widths: np.ndarray
    kernel: np.ndarray
    stride: np.ndarray
    padding: np.ndarray
    dilation: np.ndarray
    rows: int


class Arriving(NamedTuple):
    """Planes, some of which are to be summed.

    Attributes
    ----------
    planes:
        uint8 (m, H, W, C), where `silence` means no spike.
    signs:
        2 if spikes may be negative, else 1.
    most:
        Largest magnitude of a spike.
    numbers:
        int64 (k,), indices of the planes that may be summed.
    counts:
        int64 (k,), spike count of each of them; a spike of magnitude n counts as n.
    """

    planes: np.ndarray
    silence: int
    signs: int
    most: int
    numbers: np.ndarray
    counts: np.ndarray


class Listed(NamedTuple):
    """The spikes of several planes.

    Attributes
    ----------
    starts:
        int64 (planes, signs, H * W + 1), index of the first event of each pixel.
    events:
        uint32 (E,).
    """

    starts: np.ndarray
    events: np.ndarray


@part_of_another
def list_words(row, choice, starts, events, n):  # type: ignore[no-untyped-def]
    """Append the spikes of a row of the plane, by words of eight bytes, if 8 divides C.

    `choice` selects the bytes that are spikes: those of 1, if all are 0 or 1; or those of 2 or 0,
    if all are 0, 1 or 2.
    """
    each = row.shape[0] // starts.shape[0]
    for x in range(starts.shape[0]):
        starts[x] = n
        for j in range(x * each, (x + 1) * each):
            word = row[j]
            if choice == 2:
                word = (word >> np.uint64(1)) & np.uint64(_ONES)
            elif choice == 0:
                word = ~(word | (word >> np.uint64(1))) & np.uint64(_ONES)
            byte = np.int64((word * np.uint64(SPREAD)) >> np.uint64(56))
            put_eight(events, n, POSITIONS, 8 * byte, 8 * j)
            n += POSITIONS_OF[byte]
    return n


@part_of_another
def list_bytes(row, silence, sign, starts, events, n):  # type: ignore[no-untyped-def]
    """Append the spikes of one sign in a row of the plane (W, C), a spike of size n n times."""
    channels = row.shape[1]
    for x in range(row.shape[0]):
        starts[x] = n
        for c in range(channels):
            for _ in range(sign * (np.int64(row[x, c]) - silence)):
                events[n] = x * channels + c
                n += 1
    return n


@part_of_another
def list_plane(plane, arriving, sign, starts, events, n):  # type: ignore[no-untyped-def]
    """Append the spikes of one sign in a plane (H, W, C); `starts` is (H * W + 1,)."""
    height, width, channels = plane.shape
    in_words = channels % 8 == 0 and arriving.most == 1
    for y in range(height):
        begin = starts[y * width : (y + 1) * width]
        if in_words:
            words = plane[y].reshape(width * channels).view(np.uint64)
            n = list_words(words, arriving.silence + sign, begin, events, n)
        else:
            n = list_bytes(plane[y], arriving.silence, sign, begin, events, n)
    starts[height * width] = n
    return n


@part_of_another
def list_planes(arriving, mine):  # type: ignore[no-untyped-def]
    """The spikes of the planes `mine`."""
    listed = 0
    for m in mine:
        listed += arriving.counts[m]
    sites = arriving.planes.shape[1] * arriving.planes.shape[2]
    starts = np.empty((len(mine), arriving.signs, sites + 1), np.int64)
    events = np.empty(listed + SLACK, np.uint32)
    n = 0
    for s in range(arriving.signs):
        for i in range(len(mine)):
            plane = arriving.planes[arriving.numbers[mine[i]]]
            n = list_plane(plane, arriving, 1 - 2 * s, starts[i, s], events, n)
    return Listed(starts, events)


@part_of_another
def find_spans(size, weighted, outputs):  # type: ignore[no-untyped-def]
    """Column ranges of a row that each output of a row takes, int64 (W_out, pieces, 3).

    First column, the one after the last, and the offset from the number of an event to that of its
    weights in a row of the kernel. With dilation each column is a separate piece.
    """
    pieces = 1 if weighted.dilation[1] == 1 else weighted.kernel[1]
    together = weighted.kernel[1] // pieces
    spans = np.empty((outputs, pieces, 3), np.int64)
    for x in range(outputs):
        for b in range(pieces):
            column = x * weighted.stride[1] - weighted.padding[1] + b * weighted.dilation[1]
            low = min(max(column, 0), size[1])
            spans[x, b, 0] = low
            spans[x, b, 1] = max(low, min(column + together, size[1]))
            spans[x, b, 2] = (b - column) * size[2]
    return spans


@inlined
def take(starts, s, events, met, number, spans, x, rows):  # type: ignore[no-untyped-def]
    """Write the rows of weights that the output `x` sums over a plane's rows; returns how many."""
    n = 0
    for i in range(number):
        for b in range(spans.shape[1]):
            first = starts[s, met[i, 0] + spans[x, b, 0]]
            many = starts[s, met[i, 0] + spans[x, b, 1]] - first
            for k in range(0, many, SLACK):
                put_sixteen(rows, n + k, events, first + k, met[i, 1] + spans[x, b, 2])
            n += many
    return n


@part_of_another
def put_plane(  # type: ignore[no-untyped-def]
    starts, events, size, weighted, place, width, first, above, below, spans, total, rows
):
    """Sum one plane of size (H, W, C), outputs from `first` on, over some rows of the kernel.

    `rows`, uint32, is space for the rows of weights of one output.
    """
    outputs = total.shape[2]
    met, spare = np.empty((below - above, 2), np.int64), np.empty(PAIRED, np.int32)
    whole = outputs - first >= width
    for y in range(total.shape[0]):
        number = 0
        for a in range(above, below):
            row = y * weighted.stride[0] - weighted.padding[0] + a * weighted.dilation[0]
            if 0 <= row < size[0]:
                met[number, 0] = row * size[1]
                met[number, 1] = place // width + a * weighted.kernel[1] * size[2]
                number += 1
        into = total[y].reshape(-1) if whole else spare
        for x in range(total.shape[1]):
            at = x * outputs + first if whole else 0
            fresh = np.int64(above == 0 or not whole)
            for s in range(starts.shape[0]):
                n, done = take(starts, s, events, met, number, spans, x, rows), 0
                while fresh or done < n:
                    stop = min(n, done + MOST_EVENTS)
                    add_weights(
                        into, at, weighted.weight, width, rows, done, stop, 1 - 2 * s, fresh
                    )
                    done, fresh = stop, np.int64(0)
            if not whole:
                for k in range(outputs - first):
                    before = np.int32(0) if above == 0 else total[y, x, first + k]
                    total[y, x, first + k] = before + spare[k]


@part_of_another
def put_group(arriving, mine, weighted, total):  # type: ignore[no-untyped-def]
    """Sum the planes `mine`, in one thread."""
    size = arriving.planes.shape[1:]
    listed = list_planes(arriving, mine)
    spans = find_spans(size, weighted, total.shape[2])
    places = weighted.kernel[0] * weighted.kernel[1]
    rows = np.empty(places * size[2] * arriving.most + SLACK, np.uint32)
    first = place = 0
    for width in weighted.widths:
        for above in range(0, weighted.kernel[0], weighted.rows):
            below = min(weighted.kernel[0], above + weighted.rows)
            for i in range(len(mine)):
                put_plane(
                    listed.starts[i],
                    listed.events,
                    size,
                    weighted,
                    place,
                    width,
                    first,
                    above,
                    below,
                    spans,
                    total[mine[i]],
                    rows,
                )
        first += width
        place += places * size[2] * width


def _make_put_sums(source: str) -> Any:
    @compiled
    def put_sums(arriving, mine, weighted, total):  # type: ignore[no-untyped-def]
        _ = source  # numba's cache key includes the values of the closure
        put_group(arriving, mine, weighted, total)

    return put_sums


put_sums = _make_put_sums(SOURCE)
"""`put_sums(arriving, mine, weighted, total)`: sums of the planes `mine`.

The sums are written into `total`, int32 (k, H_out, W_out, C_out).
"""
