"""Check of a register's width during a run."""

from __future__ import annotations

import numpy as np

from toolchain.errors import ValueRangeError


class StateGuard:
    """Raises an error that names `node` when values exceed the signed range of `bits` bits."""

    def __init__(self, bits: int, node: str | None = None) -> None:
        self._node = node
        self._low, self._high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def check(self, values: np.ndarray, time_step: int) -> None:
        """Raise ValueRangeError, with the global step, if any of `values` is outside the range."""
        low, high = int(values.min()), int(values.max())
        if low < self._low or high > self._high:
            raise ValueRangeError(
                f"a state left its range at global step {time_step}",
                node=self._node,
                found=f"{low} .. {high}",
                allowed=f"{self._low} .. {self._high}",
                remedy="use fewer weight bits or steps",
            )
