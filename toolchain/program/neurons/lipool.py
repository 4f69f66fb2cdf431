"""LIPool, a max pool over spikes: it sends the change of its window's largest spike count.

One step, in this order (`counts(0) = 0`, `m(0) = 0`; `I` holds a window's spikes one by one):

    counts += I
    m_new = max of counts over the window
    s = m_new - m;  m = m_new

So after every step the net count it has sent is the largest net count of its window: exactly the
max pool of the counts. Spikes are in {0, 1} behind IF and in {-1, 0, 1} behind CIF. Counts are
never negative, so padding, which counts 0, never wins over a real element: the same as torch's
padding with minus infinity. Source: Li et al. (CASC), docs/METHODS.md "Layers in both".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np


class PoolState(NamedTuple):
    """Net spike counts of each window, (N, ..., K), and their maximum, (N, ...)."""

    counts: Any
    maximum: Any


@dataclass(frozen=True)
class LIPool:
    """A max-pool population; it has no parameters. See the module for the equation."""

    kind: ClassVar[str] = "LIPOOL"

    def arrays(self) -> dict[str, np.ndarray]:
        """Its integer arrays by name: none."""
        return {}

    @staticmethod
    def start(window_zeros: Any) -> PoolState:
        """State before local step 1; `window_zeros`, (N, ..., K), are the counts to start from."""
        return PoolState(window_zeros, window_zeros[..., 0])

    @staticmethod
    def step(state: PoolState, window_spikes: Any) -> tuple[PoolState, Any]:
        """One step for spikes (N, ..., K). Returns the state and the spikes sent, (N, ...)."""
        counts = state.counts + window_spikes
        largest = counts[..., 0]
        for position in range(1, counts.shape[-1]):
            count = counts[..., position]
            largest = largest + (count - largest) * (count > largest)
        return PoolState(counts, largest), largest - state.maximum
