"""Fitting of thresholds so that every range can be proved.

Weights, bias, threshold and state of a channel all scale with its integer threshold. A lower
threshold leaves more room in the register, with coarser weights. Only channels that need it are
lowered; the conversion's report and notes state the cost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolchain.conversion.quantization.integerise import LayerRounding
from toolchain.program.bounds import overload
from toolchain.program.int_program import IntProgram

MAX_ROUNDS = 8
"""Most rounds; each lowers thresholds by the bound, and rounded weights may need another round."""
MARGIN = 0.995
"""Factor below the exact bound, so that rounding does not bring the excess back."""

COARSEST = 1 / 8
"""Largest weight error that lowering may cost, relative to a layer's largest weight.

It leaves the largest weight four units, or three bits.
"""

Room = dict[str, np.ndarray]
Lowering = Callable[[Room], tuple[IntProgram, list[LayerRounding]]]


def fit_ranges(
    lower: Lowering, room: Room, *, coarsest: float = COARSEST
) -> tuple[IntProgram, list[LayerRounding]]:
    """Lower thresholds until the range analysis can prove the network, if that is possible.

    `lower` integerises with a factor in (0, 1] per channel on the thresholds, by layer. `room`
    contains the initial factors, and afterwards the final ones. If weights would become
    coarser than `coarsest`, the network is returned with its initial thresholds; `prove` then names
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
        del program  # frees the weights that are made again
        program, rounding = lower(room)
        if any(r.lowered and r.weight_error > coarsest for r in rounding):
            room.clear()
            return lower(room)
    return program, rounding
