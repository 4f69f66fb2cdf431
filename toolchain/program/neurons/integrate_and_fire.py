"""IF neuron with reset by subtraction.

One step, in this order (`v(0) = initial_potential`):

    v += I
    s  = [v >= threshold]
    v -= threshold * s

Source: Bu et al., ICLR 2022 (QCFS), and Huang et al., IEEE TNNLS 2025 (NQ), section on the
converted network; both start at half the threshold.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from toolchain.int_range import IntRange
from toolchain.program.neurons.base import CountGrowth
from toolchain.program.neurons.thresholds import ThresholdNeuron
from toolchain.program.synapse import Synapse


class IntegrateAndFireState(NamedTuple):
    """Membrane potential, shape (N, ...)."""

    membrane_potential: Any


@dataclass(frozen=True, eq=False)
class SubtractingNeuron(ThresholdNeuron):
    """What IF and graded IF share: spikes 0 .. `largest_spike`, reset by subtraction alone."""

    @staticmethod
    def start(membrane_potential: Any, zeros: Any) -> IntegrateAndFireState:
        """State before local step 1; `zeros`, of the shape of the state, is not used."""
        return IntegrateAndFireState(membrane_potential)

    @property
    @abstractmethod
    def largest_spike(self) -> int:
        """Largest spike of one step."""

    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """The range 0 .. largest_spike."""
        return IntRange(0, self.largest_spike)

    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """Bounds 0 <= count <= largest_spike t."""
        return CountGrowth(step=IntRange(0, self.largest_spike))

    def most_spikes(self, steps: int, wake_steps: int) -> int:
        """Largest sum of the spikes before step `steps`."""
        return self.largest_spike * (steps - 1)

    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Number of neurons whose potential is at the threshold or above."""
        return int((potential >= self.threshold).sum())


@dataclass(frozen=True, eq=False)
class IntegrateAndFire(SubtractingNeuron):
    """Parameters of an IF population; see the module for the equation."""

    kind: ClassVar[str] = "IF"

    @property
    def largest_spike(self) -> int:
        """Largest spike of one step."""
        return 1

    @staticmethod
    def step(
        state: IntegrateAndFireState, current: Any, threshold: Any, awake: bool
    ) -> tuple[IntegrateAndFireState, Any]:
        """One step; arrays broadcast to (N, ...). Returns the state and spikes in {0, 1}."""
        v = state.membrane_potential + current
        spikes = (v >= threshold) * 1
        return IntegrateAndFireState(v - threshold * spikes), spikes

    def after_firing(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds after firing: the neuron fires whenever v >= threshold."""
        theta = self.threshold.astype(np.int64)
        fires = high >= theta
        stays_high = np.where(low < theta, np.minimum(high, theta - 1), high - theta)
        after_high = np.where(fires, np.maximum(stays_high, high - theta), high)
        after_low = np.where(low >= theta, low - theta, np.where(fires, np.minimum(low, 0), low))
        return after_low, after_high
