"""Makes every range provable by lowering thresholds where the worst case would overflow.

Weights, bias, threshold and state of a channel all scale with its integer threshold, so a lower
one makes room in the register, at the price of coarser weights. Only channels that need it pay;
what it costs them is in the conversion's report and notes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolchain.conversion.quantization.integerise import LayerRounding
from toolchain.program.bounds import overload
from toolchain.program.int_program import IntProgram

MAX_ROUNDS = 8
"""Each round lowers by what the bound says; rounding of weights can need a second look."""
MARGIN = 0.995
"""Lowered a little more than needed, so that rounding does not bring the excess back."""

COARSEST = 1 / 8
"""Weight error, relative to a layer's largest weight, that lowering may cost: four units for the
largest weight, three bits. Fewer bits cost more than that by themselves."""

Room = dict[str, np.ndarray]
Lowering = Callable[[Room], tuple[IntProgram, list[LayerRounding]]]


def fit_ranges(
    lower: Lowering, room: Room, *, coarsest: float = COARSEST
) -> tuple[IntProgram, list[LayerRounding]]:
    """Lower a network so that the range analysis can prove it, if thresholds allow.

    `lower` integerises with a factor in (0, 1] per channel on the thresholds, by layer. `room`
    holds the factors to start from, and afterwards those found. Where weights would become
    coarser than `coarsest`, the network is returned as it was without room; `prove` then names
    the layer and its bound.
    """
    program, rounding = lower(room)
    for _ in range(MAX_ROUNDS):
        scaled = {r.name for r in rounding}
        excess = {
            n: load for n, load in overload(program).items() if n in scaled and load.max() > 1
        }
        if not excess:
            break
        for name, load in excess.items():
            factor = np.where(load > 1, MARGIN / np.maximum(load, 1.0), 1.0)
            room[name] = room.get(name, np.ones(len(load))) * factor
        program, rounding = lower(room)
        if any(r.lowered and r.weight_error > coarsest for r in rounding):
            room.clear()
            return lower(room)
    return program, rounding
