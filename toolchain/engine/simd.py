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
    _context, total, at, weight, width, rows, first, stop, sign, fresh
):
    """Add rows of weights: `total[at : at + width] += sign * sum of weight[rows[first:stop]]`.

    Parameters
    ----------
    total:
        int32 (K,).
    weight:
        int16 (R * width / 2,) as `paired` gives it, R rows of `width` weights.
    width:
        One of `WIDTHS`.
    rows:
        uint32 (E,).
    first, stop:
        At most `MOST_EVENTS` of the rows are added.
    sign:
        1 or -1.
    fresh:
        Whether to overwrite (1) the values in `total`.

    Notes
    -----
    A word is 256 h + l + 128 for two weights h and l. The sum of words modulo 2^16 less 256 times
    the sum of the h, which an arithmetic shift gives, is the sum of the l + 128: two additions and
    a shift for 64 weights.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, at, _, asked, _, first, stop, sign, fresh = arguments
        total, weights, rows = (
            _data(context, builder, signature.args[k], arguments[k], element)
            for k, element in ((0, _I32), (2, _I16), (4, _I32))
        )
        done = builder.append_basic_block("done")
        choice = builder.switch(asked, done)
        for wide in WIDTHS:
            choice.add_case(ir.Constant(_I64, wide), builder.append_basic_block(f"width{wide}"))
            builder.position_at_end(choice.cases[-1][1])
            sums = _sum_of_rows(builder, wide, weights, rows, first, stop)
            _put(builder, builder.gep(total, [at]), sums, builder.sub(stop, first), sign, fresh)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    whole = types.int64
    kinds = total, whole, weight, whole, rows, whole, whole, whole, whole
    return types.void(*kinds), generate


add_weights: Any = intrinsic(_add_weights)


def _sum_of_rows(
    builder: ir.IRBuilder, width: int, weights: Any, rows: Any, first: Any, stop: Any
) -> Sequence[Any]:
    """Sums over all rows, vectors of int16, with the builder after the loop.

    For each vector of words, one sum of the words and one of the upper weights.
    """
    kind = ir.VectorType(_I16, LANES)
    words, vectors = width // 2, width // LANES
    before = builder.block
    row, end = (builder.append_basic_block(f"{name}{width}") for name in ("row", "end"))
    nothing = ir.Constant(kind, None)
    half = ir.Constant(kind, [8] * LANES)
    builder.cbranch(builder.icmp_signed("<", first, stop), row, end)

    builder.position_at_end(row)
    place = builder.phi(_I64)
    sums = [builder.phi(kind) for _ in range(vectors)]
    number = builder.zext(builder.load(builder.gep(rows, [place])), _I64)
    of_row = builder.gep(weights, [builder.mul(number, ir.Constant(_I64, words))])
    added = []
    for k in range(0, vectors, 2):
        loaded = builder.load(_vector_at(builder, of_row, k // 2 * LANES, kind))
        loaded.align = 2
        added.append(builder.add(sums[k], loaded))
        added.append(builder.add(sums[k + 1], builder.ashr(loaded, half)))
    following = builder.add(place, ir.Constant(_I64, 1))
    builder.cbranch(builder.icmp_signed("<", following, stop), row, end)

    builder.position_at_end(end)
    found = [builder.phi(kind) for _ in range(vectors)]
    place.add_incoming(first, before)
    place.add_incoming(following, row)
    for k in range(vectors):
        sums[k].add_incoming(nothing, before)
        sums[k].add_incoming(added[k], row)
        found[k].add_incoming(nothing, before)
        found[k].add_incoming(added[k], row)
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
    """uint32 (2048,), eight for each byte: the positions of its set bits, in order, then zeros."""
    table = np.zeros((256, 8), np.uint32)
    for byte in range(256):
        bits = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(bits)] = bits
    return table.ravel()


POSITIONS = _positions()
POSITIONS_OF = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
"""Number of set bits of each byte."""


def _put_shifted(lanes: int) -> Any:
    """`put(into, at, values, first, base)`: the next `lanes` values, increased by `base`.

    It sets `into[at : at + lanes] = values[first : first + lanes] + base`; uint32 (E,) both.
    """

    def put_shifted(_context, into, at, values, first, base):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = ir.VectorType(_I32, lanes)
            to, start = (
                builder.gep(_data(context, builder, signature.args[k], arguments[k], _I32), [place])
                for k, place in ((0, arguments[1]), (2, arguments[3]))
            )
            found = builder.load(builder.bitcast(start, kind.as_pointer()))
            found.align = 4
            shifted = builder.add(found, _everywhere(builder, arguments[4], lanes))
            builder.store(shifted, builder.bitcast(to, kind.as_pointer())).align = 4
            return context.get_dummy_value()

        whole = types.int64
        return types.void(into, whole, values, whole, whole), generate

    return intrinsic(put_shifted)


put_eight = _put_shifted(8)
put_sixteen = _put_shifted(16)
