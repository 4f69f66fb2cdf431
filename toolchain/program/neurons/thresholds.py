"""The common part of IF, CIF and graded IF: threshold and initial potential per channel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.errors import ProgramError, ValueRangeError
from toolchain.program.neurons.base import Neuron, PerChannel, Step
from toolchain.program.state_interval import Currents

if TYPE_CHECKING:
    from toolchain.program.population import Population
    from toolchain.program.well_formed import Senders


@dataclass(frozen=True, eq=False)
class ThresholdNeuron(Neuron):
    """Integer parameters of a population of C channels.

    Attributes
    ----------
    threshold:
        int32, (C,), > 0; the neuron fires when `v >= threshold`.
    initial_potential:
        int32, (C,); `v` before local step 1.
    """

    array_names: ClassVar[tuple[str, ...]] = ("threshold", "initial_potential")
    watched: ClassVar[str] = "membrane potential"

    threshold: np.ndarray
    initial_potential: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", frozen_array(self.threshold, np.int32))
        object.__setattr__(
            self, "initial_potential", frozen_array(self.initial_potential, np.int32)
        )
        if self.threshold.ndim != 1 or self.threshold.shape != self.initial_potential.shape:
            raise ProgramError(
                "threshold and initial potential need one value per channel",
                found=f"{self.threshold.shape} and {self.initial_potential.shape}",
            )
        if (self.threshold <= 0).any():
            channel = int(np.argmax(self.threshold <= 0))
            raise ProgramError(
                "a threshold must be positive",
                found=f"{int(self.threshold[channel])} in channel {channel}",
                allowed=">= 1",
            )

    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless threshold, initial potential and bias are valid per channel."""
        channels = (population.shape[0],)
        if self.threshold.shape != channels:
            raise ProgramError(
                "threshold needs one value per channel",
                node=population.name,
                found=self.threshold.shape,
                allowed=channels,
            )
        for what, values in (
            ("threshold", self.threshold),
            ("initial potential", self.initial_potential),
            ("bias", population.bias),
        ):
            try:
                senders.state.check(f"{population.name} {what}", values)
            except ValueRangeError as error:
                raise ProgramError(
                    f"{what} leaves the state range",
                    node=population.name,
                    found=error.found,
                    allowed=str(senders.state),
                ) from error

    @staticmethod
    @abstractmethod
    def start(membrane_potential: Any, zeros: Any) -> Any:
        """State before local step 1; `zeros` is the initial spike count."""

    @abstractmethod
    def step(self, state: Any, current: Any, threshold: Any, awake: bool) -> tuple[Any, Any]:
        """One step; arrays broadcast to (N, ...). Returns the state and the spikes."""

    def begin(self, zeros: Any, per_channel: PerChannel) -> Any:
        """State before local step 1: the potential is `initial_potential`."""
        return self.start(zeros + per_channel(self.initial_potential), zeros)

    def advance(self, state: Any, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """Compute `step` with the threshold of each channel."""
        before = state.membrane_potential + current
        state, spikes = self.step(state, current, per_channel(self.threshold), awake)
        return Step(state, state.membrane_potential, spikes, before)

    def state_interval(self, currents: Currents) -> np.ndarray:
        """Interval of the potential; `after_firing` gives the effect of spikes in each step."""
        return currents.potential_interval(
            self.initial_potential.astype(np.int64),
            self.threshold.astype(np.int64),
            self.most_spikes,
            self.after_firing,
        )

    @property
    def largest_spike(self) -> int:
        """Largest spike of one step."""
        return self.most_spikes(2, 1)

    @abstractmethod
    def most_spikes(self, steps: int, wake_steps: int) -> int:
        """Largest number of spikes before step `steps`, with `wake_steps` wake steps up to it."""

    @abstractmethod
    def after_firing(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of the potential after firing, from those before, int64 (C,) each."""

    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """Net count of a settled CIF, see docs/METHODS.md, "Settled CIF is lossless"."""
        v = total + per_channel(self.initial_potential)
        return (v // per_channel(self.threshold)).clip(0, self.largest_spike * wake_steps)
