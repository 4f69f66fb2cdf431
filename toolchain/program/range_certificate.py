"""The proved bounds of a program in a form that files keep, so that anyone can prove them again."""

from __future__ import annotations

from typing import Any

from toolchain.program.bounds import analyse
from toolchain.program.int_program import IntProgram

VERSION = 1
"""Of the analysis: raised when a change of it moves bounds."""


def range_certificate(program: IntProgram) -> dict[str, Any]:
    """Worst cases over every input, by population, as JSON.

    `current` is the sum of one step without bias, `state` the membrane potential (accumulator,
    count) before and after firing; `holds` says whether all fit `state_bits`.
    """
    state = program.state_range
    bounds = analyse(program)
    return {
        "version": VERSION,
        "state_bits": program.state_bits,
        "holds": all(
            state.contains(interval.low, interval.high)
            for bound in bounds
            for interval in (bound.current, bound.state)
        ),
        "populations": {
            bound.name: {
                "current": [bound.current.low, bound.current.high],
                "state": [bound.state.low, bound.state.high],
            }
            for bound in bounds
        },
    }
