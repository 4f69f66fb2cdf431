"""Sums of 8-bit weights over lists of spikes, for 64 outputs at a time.

A spike adds its row of weights to sums that stay in registers; sites without spikes cost nothing.
Rows are words of 16 bits that contain two weights: word k is `256 w[32 + k] + w[k] + 128`. Over at
most 255 rows, with U the sum of their upper bytes, which are w[32 + k], and S the sum of the words
modulo 2^16, `S - 256 U` is the sum of the lower bytes modulo 2^16, all of which are >= 0, so it is
the sum itself. Two additions and a shift of 32 words serve 64 weights.

Vectors of words are values of a type `_Words` for numba; LLVM maps them to what the processor has.
The vectors are in the file of the loops that use them: numba compiles those again when their own
file changes.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types

from toolchain.compiled import compiled

WORDS = 32
"""Words of a vector: 512 bits."""
OUTPUTS = 2 * WORDS
"""Outputs that are summed together."""
MOST_ROWS = 255
"""Most rows summed in 16 bits: 255 * 255 < 2^16, and 255 * -128 >= -2^15."""
BYTES = 64
"""Sites that are searched for spikes together."""
CACHED_ROWS = 2560
"""Rows of weights of 64 outputs that stay in the cache: 160 KB."""
WORTH_FETCHING = 0.5
"""Spikes per channel from which on most rows of weights are needed.

All rows are then fetched in advance and in order, which is faster than each when it is needed.
"""

# numba's decorator has the type of what it decorates, not of its result.
intrinsic: Any = extending.intrinsic
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_ROW, _SITES = ir.VectorType(_I16, WORDS), ir.VectorType(_I8, BYTES)
_WIDE = ir.VectorType(_I32, WORDS)
_HALF = ir.Constant(_ROW, [8] * WORDS)


class _Words(types.Type):
    """A vector of 32 words of 16 bits."""


_words = _Words(name="Words")
extending.register_model(_Words)(partial(extending.models.PrimitiveModel, be_type=_ROW))


def _place(call: Any, number: int, at: Any, vector: ir.VectorType) -> Any:
    """Pointer to the vector that begins at element `at` of the array argument `number`."""
    context, builder, signature, arguments = call
    kind = signature.args[number]
    data = context.make_array(kind)(context, builder, arguments[number]).data
    element = builder.gep(builder.bitcast(data, vector.element.as_pointer()), [at])
    return builder.bitcast(element, vector.as_pointer())


def _load(call: Any, number: int, at: Any, vector: ir.VectorType) -> Any:
    loaded = call[1].load(_place(call, number, at, vector))
    loaded.align = vector.element.width // 8
    return loaded


def _everywhere(builder: ir.IRBuilder, value: Any, vector: ir.VectorType) -> Any:
    """A vector with an int64, cut to its elements' width, in every place."""
    unset = ir.Constant(vector, ir.Undefined)
    narrow = builder.trunc(value, vector.element)
    first = builder.insert_element(unset, narrow, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, vector.count), None)
    return builder.shuffle_vector(first, unset, zeros)


@intrinsic
def nothing(_context):  # type: ignore[no-untyped-def]
    """`nothing()`: sums of no row."""
    return _words(), lambda *_: ir.Constant(_ROW, None)


@intrinsic
def plus_words(_context, sums, weight, at):  # type: ignore[no-untyped-def]
    """`sums + weight[at : at + 32]`, modulo 2^16."""

    def generate(*call):  # type: ignore[no-untyped-def]
        _, builder, _, (sums, _, at) = call
        return builder.add(sums, _load(call, 1, at, _ROW))

    return sums(sums, weight, types.int64), generate


@intrinsic
def plus_upper(_context, sums, weight, at):  # type: ignore[no-untyped-def]
    """`sums` plus the upper bytes, signed, of `weight[at : at + 32]`."""

    def generate(*call):  # type: ignore[no-untyped-def]
        _, builder, _, (sums, _, at) = call
        return builder.add(sums, builder.ashr(_load(call, 1, at, _ROW), _HALF))

    return sums(sums, weight, types.int64), generate


@intrinsic
def put(_context, total, at, words, upper, rows, factor):  # type: ignore[no-untyped-def]
    """`total[at : at + 64] += factor *` the sums of the weights of a number of rows."""

    def generate(*call):  # type: ignore[no-untyped-def]
        _, builder, _, (_, at, words, upper, rows, factor) = call
        lower = builder.zext(builder.sub(words, builder.shl(upper, _HALF)), _WIDE)
        added = _everywhere(builder, builder.mul(rows, ir.Constant(_I64, 128)), _WIDE)
        factors = _everywhere(builder, factor, _WIDE)
        for k, sums in enumerate((builder.sub(lower, added), builder.sext(upper, _WIDE))):
            there = builder.add(at, ir.Constant(_I64, k * WORDS))
            before = _load(call, 0, there, _WIDE)
            after = builder.add(before, builder.mul(sums, factors))
            builder.store(after, _place(call, 0, there, _WIDE)).align = 4

    whole = types.int64
    return types.void(total, whole, words, upper, whole, whole), generate


def _compared(operator: str) -> Any:
    """`compared(spikes, at, limit)`: bit k of a uint64 says how `spikes[at + k]` compares."""

    @intrinsic
    def compared(_context, spikes, at, limit):  # type: ignore[no-untyped-def]
        def generate(*call):  # type: ignore[no-untyped-def]
            _, builder, _, (_, at, limit) = call
            limits = _everywhere(builder, limit, _SITES)
            bits = builder.icmp_signed(operator, _load(call, 0, at, _SITES), limits)
            return builder.bitcast(bits, _I64)

        return types.uint64(spikes, types.int64, types.int64), generate

    return compared


at_least, at_most = _compared(">="), _compared("<=")


@intrinsic
def lowest(_context, bits):  # type: ignore[no-untyped-def]
    """Number of the lowest bit of a uint64 that is not 0."""

    def generate(_, builder, __, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(_I1, 1))

    return types.int64(types.uint64), generate


@intrinsic
def fetch(_context, weight, at):  # type: ignore[no-untyped-def]
    """Bring `weight[at : at + 32]` into the cache of second level, without waiting for it."""

    def generate(*call):  # type: ignore[no-untyped-def]
        _, builder, _, (_, at) = call
        place = builder.bitcast(_place(call, 0, at, _ROW), _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        # To read, kept in the second level, data.
        builder.call(hint, [place, *(ir.Constant(_I32, number) for number in (0, 2, 1))])

    return types.void(weight, types.int64), generate


inlined: Any = numba.njit(nogil=True, inline="always")
"""Decorator of a function that becomes a part of its callers."""


@inlined
def reached(spikes, at, inside, level):  # type: ignore[no-untyped-def]
    """Bits of the spikes `at .. at + inside - 1` that are >= a level > 0, or <= one below 0."""
    if at + BYTES > spikes.shape[0]:
        bits = np.uint64(0)
        for k in range(inside):
            spike = np.int64(spikes[at + k])
            hit = spike >= level if level > 0 else spike <= level
            bits |= np.uint64(hit) << np.uint64(k)
        return bits
    bits = at_least(spikes, at, level) if level > 0 else at_most(spikes, at, level)
    if inside < BYTES:
        bits &= (np.uint64(1) << np.uint64(inside)) - np.uint64(1)
    return bits


@compiled
def list_spikes(spikes, channels, most, sign, events, starts):  # type: ignore[no-untyped-def]
    """List the spikes of one sign; a spike of magnitude n stands n times in the list.

    Parameters
    ----------
    spikes:
        int8, flat array of (lines, H, C).
    most:
        Largest magnitude of a spike of this sign.
    events:
        uint32, for the list: per spike its place in its line, `row * C + channel`.
    starts:
        uint32 (lines, H + 1): where each site's part of the list begins, and the line's ends.
    """
    lines, rows = starts.shape[0], starts.shape[1] - 1
    listed = 0
    for line in range(lines):
        begin = line * rows * channels
        for row in range(rows):
            starts[line, row] = listed
            end = begin + (row + 1) * channels
            for at in range(end - channels, end, BYTES):
                for level in range(1, most + 1):
                    bits = reached(spikes, at, min(BYTES, end - at), sign * level)
                    if bits == 0:
                        break
                    while bits != 0:
                        events[listed] = at - begin + lowest(bits)
                        bits &= bits - np.uint64(1)
                        listed += 1
        starts[line, rows] = listed


@inlined
def sum_place(  # type: ignore[no-untyped-def]
    starts, line, columns, x, tap, after, runs, y, shape, events, weight, base, factor, total, at
):
    """Add the sums of the place (x, y) of a sample to `total[at : at + 64]`.

    The sample's lines begin at `line`; the columns of taps are `tap .. after - 1`, whose weights
    begin at row `base`. Arrays are not sliced here: each slice would count its uses.
    """
    _, down, channels, _ = shape
    words, upper, rows = nothing(), nothing(), np.int64(0)
    for i in range(tap, after):
        column = line + columns[x, i]
        if column < line:
            continue
        for r in range(runs.shape[1]):
            first, count = runs[y, r, 0], runs[y, r, 2]
            if count == 0:
                break
            of_run = base + ((i - tap) * down + runs[y, r, 1] - first) * channels
            event, end = np.int64(starts[column, first]), np.int64(starts[column, first + count])
            while event < end:
                stop = min(end, event + MOST_ROWS - rows)
                rows += stop - event
                for k in range(event, stop):
                    # An index without a sign needs no check for a negative one.
                    row = (of_run + np.int64(events[np.uint64(k)])) * WORDS
                    words = plus_words(words, weight, row)
                    upper = plus_upper(upper, weight, row)
                event = stop
                if rows == MOST_ROWS:
                    put(total, at, words, upper, rows, factor)
                    words, upper, rows = nothing(), nothing(), np.int64(0)
    if rows:
        put(total, at, words, upper, rows, factor)


@compiled
def sum_events(  # type: ignore[no-untyped-def]
    events, starts, weight, shape, columns, runs, factor, total
):
    """Add the sums of all listed spikes, times `factor`, to `total`.

    Parameters
    ----------
    events, starts:
        As `list_spikes` leaves them; the lines are the columns (B, W) of the source.
    weight:
        int16, flat array of (blocks, K_w, K_h, C, 32), see `packed`.
    shape:
        (K_w, K_h, C, C'), where C' is a multiple of 64.
    columns:
        int64 (W', K_w): column of the source under each tap, or -1 for none.
    runs:
        int64 (H', R, 3): taps under which consecutive rows of the source lie: the first row, the
        first tap, and their number, 0 at the end of the list.
    total:
        int32, flat array of (B, W', H', C').
    """
    across, down, channels, outputs = shape
    placed_x, placed_y = columns.shape[0], runs.shape[0]
    places = total.shape[0] // (placed_y * outputs)
    lines = starts.shape[0] // (places // placed_x)
    of_tap, last = down * channels, weight.shape[0] // WORDS
    together = min(across, max(1, CACHED_ROWS // of_tap))
    ahead = 0
    if starts[-1, -1] >= WORTH_FETCHING * channels:
        ahead = -(-together * of_tap // places)
    # The weights of 64 outputs under some columns of taps stay in the cache, and meanwhile the
    # next are fetched.
    for part in range(0, outputs, OUTPUTS):
        for tap in range(0, across, together):
            after = min(tap + together, across)
            base = (part // OUTPUTS * across + tap) * of_tap
            for place in range(places):
                soon = base + (after - tap) * of_tap + place * ahead
                for row in range(soon, min(last, soon + ahead)):
                    fetch(weight, row * WORDS)
                sample, x = divmod(place, placed_x)
                for y in range(placed_y):
                    sum_place(
                        starts,
                        sample * lines,
                        columns,
                        x,
                        tap,
                        after,
                        runs,
                        y,
                        shape,
                        events,
                        weight,
                        base,
                        factor,
                        total,
                        (place * placed_y + y) * outputs + part,
                    )


def sum_windows(spikes: np.ndarray, sums: np.ndarray) -> None:
    """Sum int8 spikes (B, W, H, C) over windows that do not overlap, into int8 (B, W', H', C)."""
    wide = -(-spikes.shape[1] // sums.shape[1])
    high = -(-spikes.shape[2] // sums.shape[2])
    sums[...] = 0
    for x in range(wide):
        for y in range(high):
            more = spikes[:, x::wide, y::high]
            sums[:, : more.shape[1], : more.shape[2]] += more


def packed(weight: np.ndarray) -> np.ndarray:
    """8-bit weights (C', C, K_h, K_w) as words, int16, flat (blocks, K_w, K_h, C, 32)."""
    blocks = -(-len(weight) // OUTPUTS)
    whole = np.zeros((blocks * OUTPUTS, *weight.shape[1:]), np.int16)
    whole[: len(weight)] = weight
    pairs = whole.reshape(blocks, 2, WORDS, *weight.shape[1:])
    words = (256 * pairs[:, 1] + pairs[:, 0] + 128).transpose(0, 4, 3, 2, 1)
    laid_out = aligned_zeros(words.shape, np.int16)
    laid_out[...] = words
    return laid_out.reshape(-1)


def aligned_zeros(shape: tuple[int, ...], kind: type) -> np.ndarray:
    """Zeros that begin at a multiple of a vector's size: no vector is then in two cache lines."""
    size = prod(shape) * np.dtype(kind).itemsize
    room = np.zeros(size + BYTES, np.uint8)
    begin = -room.ctypes.data % BYTES
    return room[begin : begin + size].view(kind).reshape(shape)
