"""Partition of a program into blocks of similar cost, cut between single layers."""

from __future__ import annotations

import numpy as np

from toolchain.errors import TargetError
from toolchain.program.cuts import possible_cuts
from toolchain.program.int_program import IntProgram
from toolchain.program.synops import synapse_fan_out


def even_cuts(program: IntProgram, blocks: int) -> tuple[int, ...]:
    """Indices of the populations that begin a new block, for a number of blocks.

    Each cut is the possible one nearest to an even share of the network's multiply-adds.

    Raises
    ------
    TargetError
        If the network cannot be cut into that many blocks.
    """
    possible = possible_cuts(program)
    if not 1 <= blocks <= len(possible) + 1:
        raise TargetError(
            "the network cannot be cut into that many blocks",
            node=program.name,
            found=blocks,
            allowed=f"1 .. {len(possible) + 1}",
            remedy="a cut needs a place where a single layer's spikes pass",
        )
    work = [
        sum(int(synapse_fan_out(s, program.source_shape(s.source)).sum()) for s in p.synapses)
        for p in program.populations
    ]
    before = np.cumsum([0, *work])
    cuts: list[int] = []
    for share in range(1, blocks):
        # Each of the remaining cuts needs a place.
        left = possible[len(cuts) and possible.index(cuts[-1]) + 1 :]
        left = left[: len(left) - (blocks - 1 - share)]
        goal = before[-1] * share / blocks
        cuts.append(min(left, key=lambda index: abs(before[index] - goal)))
    return tuple(cuts)
