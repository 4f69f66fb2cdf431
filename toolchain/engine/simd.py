"""Vector code for two loops that compilers do not vectorise.

The code uses LLVM vectors of fixed length, which LLVM maps to the CPU's instructions. Nothing here
names an instruction set, and every CPU computes the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from toolchain.files import file_sha256

SOURCE = file_sha256(Path(__file__))
"""Hash of this file, part of the cache key of its callers: numba checks the caller's file only."""
LANES = 32
"""Words per vector, int16: 512 bits."""
PAIRED = 2 * LANES
"""Outputs per vector of weights: a word contains two."""
WIDTHS = (PAIRED, 2 * PAIRED, 4 * PAIRED)
"""Numbers of outputs that `add_weights` can sum together, in half of AVX-512's registers."""
MOST_EVENTS = 255
"""Most weights that may be added in 16 bits: 255 * -128 >= -2^15, and 255 * 255 < 2^16."""
BIAS = 128
"""Added to the lower weight of a word, which makes it unsigned."""

_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))


def _data(context: Any, builder: ir.IRBuilder, kind: Any, value: Any, element: ir.Type) -> Any:
    pointer = context.make_array(kind)(context, builder, value).data
    return builder.bitcast(pointer, element.as_pointer())


def _vector_at(builder: ir.IRBuilder, pointer: Any, start: int, kind: ir.VectorType) -> Any:
    place = builder.gep(pointer, [ir.Constant(_I64, start)])
    return builder.bitcast(place, kind.as_pointer())


def _add_weights(  # type: ignore[no-untyped-def]
    _context, total, weight, width, events, runs, sums, count
):
    """Add rows of weights for each of `count` sums of `width` outputs.

    A sum is `total[at : at + width] += sign * weight[(base + events[i]) * width : ... + width]`
    over the events of its runs.

    Parameters
    ----------
    total:
        int32 (K,).
    weight:
        int16 (R * width / 2,) as `paired` gives it, a row of `width` weights per event.
    width:
        One of `WIDTHS`.
    events:
        uint32 (E,).
    runs:
        int64 (n, 3): first event, the one after the last, `base`.
    sums:
        int64 (m, 6): `at`, first run, the one after the last, sign (1 or -1), whether to overwrite
        (1) the values in `total`, and the number of events, at most `MOST_EVENTS`.

    Notes
    -----
    A word is 256 h + l + 128 for two weights h and l. The sum of words modulo 2^16 less 256 times
    the sum of the h, which an arithmetic shift gives, is the sum of the l + 128: two additions and
    a shift for 64 weights.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kinds = signature.args
        elements = {0: _I32, 1: _I16, 3: _I32, 4: _I64, 5: _I64}
        total, weights, numbers, runs, sums = (
            _data(context, builder, kinds[k], arguments[k], element)
            for k, element in elements.items()
        )
        done = builder.append_basic_block("done")
        choice = builder.switch(arguments[2], done)
        for wide in WIDTHS:
            choice.add_case(ir.Constant(_I64, wide), builder.append_basic_block(f"width{wide}"))
            builder.position_at_end(choice.cases[-1][1])
            with cgutils.for_range(builder, arguments[6]) as loop:
                row = builder.mul(loop.index, ir.Constant(_I64, 6))
                at, first, stop, sign, fresh, events = (
                    builder.load(builder.gep(sums, [builder.add(row, ir.Constant(_I64, k))]))
                    for k in range(6)
                )
                found = _sum_of_runs(builder, wide, weights, numbers, runs, first, stop)
                _put(builder, builder.gep(total, [at]), found, events, sign, fresh)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(total, weight, whole, events, runs, sums, whole), generate


add_weights: Any = intrinsic(_add_weights)


def _sum_of_runs(
    builder: ir.IRBuilder,
    width: int,
    weights: Any,
    numbers: Any,
    table: Any,
    first_run: Any,
    last_run: Any,
) -> Sequence[Any]:
    """Sums over all runs, vectors of int16, with the builder after the loop.

    For each vector of words, one sum of the words and one of the upper weights.
    """
    kind = ir.VectorType(_I16, LANES)
    words = width // 2
    vectors = width // LANES
    before = builder.block
    run, event, behind, end = (
        builder.append_basic_block(f"{name}{width}") for name in ("run", "event", "behind", "end")
    )
    one = ir.Constant(_I64, 1)
    nothing = ir.Constant(kind, None)
    half = ir.Constant(kind, [8] * LANES)
    builder.cbranch(builder.icmp_signed("<", first_run, last_run), run, end)

    builder.position_at_end(run)
    number = builder.phi(_I64)
    held = [builder.phi(kind) for _ in range(vectors)]
    row = builder.mul(number, ir.Constant(_I64, 3))
    first, stop, base = (
        builder.load(builder.gep(table, [builder.add(row, ir.Constant(_I64, k))])) for k in range(3)
    )
    shifted = builder.gep(weights, [builder.mul(base, ir.Constant(_I64, words))])
    builder.cbranch(builder.icmp_signed("<", first, stop), event, behind)

    builder.position_at_end(event)
    place = builder.phi(_I64)
    sums = [builder.phi(kind) for _ in range(vectors)]
    which = builder.zext(builder.load(builder.gep(numbers, [place])), _I64)
    of_event = builder.gep(shifted, [builder.mul(which, ir.Constant(_I64, words))])
    added = []
    for k in range(0, vectors, 2):
        loaded = builder.load(_vector_at(builder, of_event, k // 2 * LANES, kind))
        loaded.align = 2
        added.append(builder.add(sums[k], loaded))
        added.append(builder.add(sums[k + 1], builder.ashr(loaded, half)))
    following = builder.add(place, one)
    builder.cbranch(builder.icmp_signed("<", following, stop), event, behind)
    place.add_incoming(first, run)
    place.add_incoming(following, event)

    builder.position_at_end(behind)
    reached = [builder.phi(kind) for _ in range(vectors)]
    next_number = builder.add(number, one)
    builder.cbranch(builder.icmp_signed("<", next_number, last_run), run, end)
    number.add_incoming(first_run, before)
    number.add_incoming(next_number, behind)

    builder.position_at_end(end)
    found = [builder.phi(kind) for _ in range(vectors)]
    for k in range(vectors):
        held[k].add_incoming(nothing, before)
        held[k].add_incoming(reached[k], behind)
        sums[k].add_incoming(held[k], run)
        sums[k].add_incoming(added[k], event)
        reached[k].add_incoming(held[k], run)
        reached[k].add_incoming(added[k], event)
        found[k].add_incoming(nothing, before)
        found[k].add_incoming(reached[k], behind)
    return found


def _everywhere(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """A vector of int32 with one value in each lane."""
    kind = ir.VectorType(_I32, lanes)
    unset = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(unset, builder.trunc(value, _I32), ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, unset, ir.Constant(kind, [0] * lanes))


def _put(
    builder: ir.IRBuilder, total: Any, sums: Sequence[Any], events: Any, sign: Any, fresh: Any
) -> None:
    """Store `sign` times the weights' sums at `total` if `fresh`, else add them."""
    kind = ir.VectorType(_I32, LANES)
    signs = _everywhere(builder, sign, LANES)
    bias = _everywhere(builder, builder.mul(events, ir.Constant(_I64, BIAS)), LANES)
    half = ir.Constant(ir.VectorType(_I16, LANES), [8] * LANES)
    found = []
    for words, upper in zip(sums[::2], sums[1::2], strict=True):
        lower = builder.sub(words, builder.shl(upper, half))
        found.append(builder.sub(builder.zext(lower, kind), bias))
        found.append(builder.sext(upper, kind))
    signed = [builder.mul(value, signs) for value in found]
    places = [_vector_at(builder, total, k * LANES, kind) for k in range(len(signed))]
    overwrites = builder.icmp_signed("!=", fresh, ir.Constant(_I64, 0))
    with builder.if_else(overwrites) as (overwrite, add):
        with overwrite:
            for value, place in zip(signed, places, strict=True):
                builder.store(value, place).align = 4
        with add:
            for value, place in zip(signed, places, strict=True):
                old = builder.load(place)
                old.align = 4
                builder.store(builder.add(old, value), place).align = 4


def paired(weight: np.ndarray) -> np.ndarray:
    """8-bit weights, (..., 64 n), as words, int16 (..., 32 n): see `add_weights`."""
    blocks = weight.astype(np.int16).reshape(*weight.shape[:-1], -1, 2, LANES)
    words = 256 * blocks[..., 1, :] + blocks[..., 0, :] + BIAS
    return words.reshape(*weight.shape[:-1], -1)


SPREAD = 0x0102040810204080
"""Multiplying a word of bytes 0 or 1 by it gathers them as bits of the highest byte in order."""


def _positions() -> np.ndarray:
    """Table uint32 (256, 8): the positions of the set bits of each byte, in order, then zeros."""
    table = np.zeros((256, 8), np.uint32)
    for byte in range(256):
        bits = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(bits)] = bits
    return table


POSITIONS = _positions()
POSITIONS_OF = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
"""Number of set bits of each byte."""


def _put_positions(  # type: ignore[no-untyped-def]
    _context, events, at, positions, byte, base
):
    """Set `events[at : at + 8] = base + positions[byte]`; uint32 (E,), uint32 (256, 8)."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.VectorType(_I32, 8)
        into = _data(context, builder, signature.args[0], arguments[0], _I32)
        table = _data(context, builder, signature.args[2], arguments[2], _I32)
        row = builder.gep(table, [builder.mul(arguments[3], ir.Constant(_I64, 8))])
        found = builder.load(builder.bitcast(row, kind.as_pointer()))
        found.align = 4
        lanes = _everywhere(builder, arguments[4], 8)
        place = builder.gep(into, [arguments[1]])
        put = builder.store(builder.add(found, lanes), builder.bitcast(place, kind.as_pointer()))
        put.align = 4
        return context.get_dummy_value()

    whole = types.int64
    return types.void(events, whole, positions, whole, whole), generate


put_positions: Any = intrinsic(_put_positions)
