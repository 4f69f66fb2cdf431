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

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from toolchain.int_range import IntRange
from toolchain.program.neurons.thresholds import ThresholdParameters


class ConsistentState(NamedTuple):
    """Membrane potential and net spike count, shape (N, ...), and wake steps so far."""

    membrane_potential: Any
    spike_count: Any
    wake_count: int


@dataclass(frozen=True, eq=False)
class ConsistentIntegrateAndFire(ThresholdParameters):
    """Parameters of a CIF population; see the module for the equation."""

    kind: ClassVar[str] = "CIF"
    spike_range: ClassVar[IntRange] = IntRange(-1, 1)

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
