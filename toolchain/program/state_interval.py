"""Bounds of a membrane potential over all local steps, for any input in range.

The summed current bounds the potential from one side: v(t) = v0 + summed current + n b - theta *
(own spikes after t - 1 steps). An interval is also carried from step to step; the tighter one is
taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

AfterFiring = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From bounds of v before firing, int64 (C,) each, to the bounds after it."""


@dataclass(frozen=True)
class Currents:
    """Bounds of one population's current as (low, high), int64 (2, C) each, and its steps.

    Attributes
    ----------
    now:
        Bounds in one step.
    by_wake_steps, by_steps:
        Bounds of the sum over steps: added per wake step, and per step.
    bias:
        int64 (C,), added on wake steps.
    """

    now: np.ndarray
    by_wake_steps: np.ndarray
    by_steps: np.ndarray
    bias: np.ndarray
    wake_steps: int
    num_steps: int

    def count_interval(self) -> np.ndarray:
        """Lowest and highest sum of currents after any number of steps, from 0: int64 (2, C)."""
        reached = np.zeros_like(self.now)
        for t in range(1, self.num_steps + 1):
            low, high = min(t, self.wake_steps) * self.by_wake_steps + t * self.by_steps
            reached = np.stack([np.minimum(reached[0], low), np.maximum(reached[1], high)])
        return reached

    def potential_interval(
        self,
        start: np.ndarray,
        theta: np.ndarray | int = 0,
        own_spikes: Callable[[int, int], int] = lambda t, n: 0,
        after_firing: AfterFiring = lambda low, high: (low, high),
    ) -> np.ndarray:
        """Interval of a potential that starts at `start` and is reduced by `theta` per own spike.

        Parameters
        ----------
        start, theta:
            int64 (C,).
        own_spikes:
            Function of a step t, from 1, and the wake steps n up to it: the largest number of
            spikes before t.

        Returns
        -------
        int64 (2, C), before and after firing.
        """
        low = high = lowest = highest = start
        for t in range(1, self.num_steps + 1):
            n = min(t, self.wake_steps)
            add = self.bias if t <= self.wake_steps else np.zeros_like(self.bias)
            total = start + n * (self.by_wake_steps + self.bias) + t * self.by_steps
            low = np.maximum(low + self.now[0] + add, total[0] - theta * own_spikes(t, n))
            high = np.minimum(high + self.now[1] + add, total[1])
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
            low, high = after_firing(low, high)
            lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        return np.stack([lowest, highest])
