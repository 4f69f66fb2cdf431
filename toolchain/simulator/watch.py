"""The error of both simulators when a sum or a state leaves its range during a run."""

from __future__ import annotations

from toolchain.errors import ValueRangeError
from toolchain.int_range import IntRange


def watch(name: str, what: str, low: int, high: int, limits: IntRange) -> None:
    """Raise ValueRangeError if `low .. high`, seen in population `name`, exceeds the limits."""
    if not limits.contains(low, high):
        raise ValueRangeError(
            f"the {what} left its range during the run",
            node=name,
            found=f"{low} .. {high}",
            allowed=str(limits),
            remedy="use fewer weight bits or steps",
        )
