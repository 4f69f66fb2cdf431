"""Watches that a register keeps to its width during a run."""

from __future__ import annotations

import numpy as np

from toolchain.errors import ValueRangeError


class StateGuard:
    """Raises when values leave the signed range of `bits` bits, naming `node`."""

    def __init__(self, bits: int, node: str | None = None) -> None:
        self._node = node
        self._low, self._high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def check(self, values: np.ndarray, time_step: int) -> None:
        """Raise ValueRangeError if any of `values` is outside, naming the global step."""
        low, high = int(values.min()), int(values.max())
        if low < self._low or high > self._high:
            raise ValueRangeError(
                f"a state left its range at global step {time_step}",
                node=self._node,
                found=f"{low} .. {high}",
                allowed=f"{self._low} .. {self._high}",
                remedy="use fewer weight bits or steps",
            )
