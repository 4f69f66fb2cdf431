"""The proved bounds of a program, in the form that files store, so that anyone can check them."""

from __future__ import annotations

from typing import Any

from toolchain.program.bounds import analyse
from toolchain.program.int_program import IntProgram

VERSION = 1
"""Version of the analysis: raised when a change of the analysis changes bounds."""


def range_certificate(program: IntProgram) -> dict[str, Any]:
    """Worst-case bounds over every input, by population, as JSON.

    `current` is the sum of one step without bias, `state` the membrane potential (accumulator,
    count) before and after firing; `holds` states whether all fit `state_bits`.
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
