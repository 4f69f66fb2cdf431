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
    put_positions,
)

_ONES = 0x0101010101010101


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


class Notes(NamedTuple):
    """The sums of the outputs of one row, written anew for each row: see `add_weights`.

    Attributes
    ----------
    counts:
        int64 (2,), number of `runs` and of `sums`.
    spare:
        int32, space for sums of more outputs than exist.
    """

    runs: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    spare: np.ndarray


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
            put_positions(events, n, POSITIONS, byte, 8 * j)
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
    events = np.empty(listed + POSITIONS.shape[1], np.uint32)
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
def note(sums, number, at, first, stop, sign, fresh, events):  # type: ignore[no-untyped-def]
    """Add one sum to the notes."""
    sums[number, 0] = at
    sums[number, 1] = first
    sums[number, 2] = stop
    sums[number, 3] = sign
    sums[number, 4] = fresh
    sums[number, 5] = events


@inlined
def note_output(starts, rows, inside, spans, x, at, fresh, runs, sums, counts):  # type: ignore[no-untyped-def]
    """Add the sums of one output over a plane's rows, (first pixel, first weights) each."""
    run, number = counts[0], counts[1]
    for s in range(starts.shape[0]):
        first, left = run, MOST_EVENTS
        for i in range(inside):
            for b in range(spans.shape[1]):
                event = starts[s, rows[i, 0] + spans[x, b, 0]]
                stop = starts[s, rows[i, 0] + spans[x, b, 1]]
                base = rows[i, 1] + spans[x, b, 2]
                while stop - event > left:
                    runs[run, 0], runs[run, 1], runs[run, 2] = event, event + left, base
                    event, run, left = event + left, run + 1, MOST_EVENTS
                    note(sums, number, at, first, run, 1 - 2 * s, fresh, MOST_EVENTS)
                    first, number, fresh = run, number + 1, 0
                runs[run, 0], runs[run, 1], runs[run, 2] = event, stop, base
                run += np.int64(event < stop)
                left -= stop - event
        if run > first or fresh:
            note(sums, number, at, first, run, 1 - 2 * s, fresh, MOST_EVENTS - left)
            number, fresh = number + 1, 0
    counts[0], counts[1] = run, number


@inlined
def hears(starts, rows, inside, across):  # type: ignore[no-untyped-def]
    """Whether there is a spike in any of a plane's rows."""
    for s in range(starts.shape[0]):
        for i in range(inside):
            if starts[s, rows[i, 0]] != starts[s, rows[i, 0] + across]:
                return True
    return False


@part_of_another
def put_plane(  # type: ignore[no-untyped-def]
    starts, events, size, weighted, place, width, first, above, below, spans, total, notes
):
    """Sum one plane of size (H, W, C), outputs from `first` on, over some rows of the kernel."""
    outputs = total.shape[2]
    rows = np.empty((below - above, 2), np.int64)
    runs, sums, counts = notes.runs, notes.sums, notes.counts
    whole = outputs - first >= width
    for y in range(total.shape[0]):
        inside = 0
        for a in range(above, below):
            row = y * weighted.stride[0] - weighted.padding[0] + a * weighted.dilation[0]
            if 0 <= row < size[0]:
                rows[inside, 0] = row * size[1]
                rows[inside, 1] = place // width + a * weighted.kernel[1] * size[2]
                inside += 1
        if not hears(starts, rows, inside, size[1]):
            if above == 0:
                total[y, :, first : first + width] = 0
            continue
        counts[:] = 0
        fresh = np.int64(above == 0 or not whole)
        for x in range(total.shape[1]):
            at = x * outputs + first if whole else x * width
            note_output(starts, rows, inside, spans, x, at, fresh, runs, sums, counts)
        into = total[y].reshape(-1) if whole else notes.spare
        add_weights(into, weighted.weight, width, events, runs, sums, counts[1])
        if not whole:
            for x in range(total.shape[1]):
                for k in range(outputs - first):
                    before = np.int32(0) if above == 0 else total[y, x, first + k]
                    total[y, x, first + k] = before + notes.spare[x * width + k]


@part_of_another
def put_group(arriving, mine, weighted, total):  # type: ignore[no-untyped-def]
    """Sum the planes `mine`, in one thread."""
    size, across = arriving.planes.shape[1:], total.shape[2]
    listed = list_planes(arriving, mine)
    spans = find_spans(size, weighted, across)
    places = weighted.kernel[0] * weighted.kernel[1]
    noted = across * arriving.signs * (places + places * size[2] * arriving.most // MOST_EVENTS + 1)
    notes = Notes(
        np.empty((noted, 3), np.int64),
        np.empty((noted, 6), np.int64),
        np.zeros(2, np.int64),
        np.empty(across * PAIRED, np.int32),
    )
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
                    notes,
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
