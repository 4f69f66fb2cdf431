"""CIF, the consistent integrate-and-fire neuron.

One step, in this order (`V(0) = initial_potential`, `N = n = 0`):

    V += I
    if awake: n += 1
    s = clip(floor(V / threshold), -1, 1)      (so -1 as soon as V < 0)
    if s <= 0 and N <= 0: s = 0                (nothing to take back)
    if s >  0 and N >= n: s = 0                (never more spikes than wake steps so far)
    N += s;  V -= threshold * s

Settled, `N = clip(floor((V(0) + X) / threshold), 0, Q)` with X the summed input over Q wake
steps. Source: Li et al., "Spiking Neural Networks with Consistent Mapping Relations Allow
High-Accuracy Inference" (CASC), and its official code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from toolchain.int_range import IntRange
from toolchain.program.neurons.base import CountGrowth
from toolchain.program.neurons.thresholds import ThresholdNeuron
from toolchain.program.synapse import Synapse


class ConsistentState(NamedTuple):
    """Membrane potential and net spike count, shape (N, ...), and wake steps so far."""

    membrane_potential: Any
    spike_count: Any
    wake_count: int


@dataclass(frozen=True, eq=False)
class ConsistentIntegrateAndFire(ThresholdNeuron):
    """Parameters of a CIF population; see the module for the equation."""

    kind: ClassVar[str] = "CIF"

    @staticmethod
    def start(membrane_potential: Any, zeros: Any) -> ConsistentState:
        """State before local step 1; `zeros` is the spike count to start from."""
        return ConsistentState(membrane_potential, zeros, 0)

    @staticmethod
    def step(
        state: ConsistentState, current: Any, threshold: Any, awake: bool
    ) -> tuple[ConsistentState, Any]:
        """One step; arrays broadcast to (N, ...). Returns the state and spikes in {-1, 0, 1}."""
        v = state.membrane_potential + current
        n = state.wake_count + 1 if awake else state.wake_count
        spikes = (v >= threshold) * 1 - (v < 0) * 1
        blocked = ((spikes <= 0) & (state.spike_count <= 0)) | (
            (spikes > 0) & (state.spike_count >= n)
        )
        spikes = spikes * ~blocked
        return ConsistentState(v - threshold * spikes, state.spike_count + spikes, n), spikes

    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """The range -1 .. 1."""
        return IntRange(-1, 1)

    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """Bounds 0 <= N <= n, by the rules of the neuron."""
        return CountGrowth(wake=IntRange(0, 1))

    @staticmethod
    def most_spikes(steps: int, wake_steps: int) -> int:
        """One spike per step, and never more than wake steps."""
        return min(steps - 1, wake_steps)

    def after_firing(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds after firing; the rules may suppress a spike, so both outcomes count.

        A negative spike takes the potential from below 0 to below the threshold.
        """
        theta = self.threshold.astype(np.int64)
        after_low = np.where((high >= theta) & (low >= 0), 0, low)
        after_high = np.where(low < 0, np.maximum(high, theta - 1), high)
        return np.minimum(after_low, low), after_high

    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Number of neurons that may still send a spike of 1 or -1."""
        fires = (potential >= self.threshold) & (counts < wake_steps)
        takes_back = (potential < 0) & (counts > 0)
        return int((fires | takes_back).sum())
