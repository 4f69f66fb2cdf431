"""What a neuron knows of itself: all that the program, its proofs and the simulator ask of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange

if TYPE_CHECKING:
    from toolchain.program.population import Population
    from toolchain.program.state_interval import Currents
    from toolchain.program.synapse import Synapse
    from toolchain.program.well_formed import Senders

PerChannel = Callable[[np.ndarray], Any]
"""From integers (C,) to an array of the caller's kind that broadcasts against the state."""
NOTHING = IntRange(0, 0)


class Step(NamedTuple):
    """What one step leaves.

    Attributes
    ----------
    potential:
        The membrane potential as recordings keep it, after firing.
    spikes:
        None from a readout.
    watched:
        The values whose range a run watches: those before firing.
    """

    state: Any
    potential: Any
    spikes: Any
    watched: Any


@dataclass(frozen=True)
class CountGrowth:
    """Net count added by each wake step and by each step of any kind."""

    wake: IntRange = NOTHING
    step: IntRange = NOTHING

    def after(self, steps: int, wake_steps: int) -> IntRange:
        """Bounds of the net count after `steps` steps, `wake_steps` of them awake."""
        return IntRange(
            wake_steps * self.wake.low + steps * self.step.low,
            wake_steps * self.wake.high + steps * self.step.high,
        )


class Neuron(ABC):
    """Parameters of a population's neurons, and their rules.

    Arrays are NumPy arrays or torch tensors alike: rules use operators only.

    Attributes
    ----------
    kind:
        Its name in files.
    array_names, real_names:
        Parameters that files hold: int32 (C,), and float64.
    watched:
        What `Step.watched` is called in a message.
    graded:
        Whether spikes may be of any size, so that nothing can count them one by one.
    """

    kind: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]] = ()
    real_names: ClassVar[tuple[str, ...]] = ()
    watched: ClassVar[str]
    graded: ClassVar[bool] = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Its integer parameters by name, int32 (C,) each."""
        return {name: getattr(self, name) for name in self.array_names}

    def reals(self) -> dict[str, float]:
        """Its real parameters by name."""
        return {name: getattr(self, name) for name in self.real_names}

    def watch_limits(self, state: IntRange) -> IntRange:
        """What `Step.watched` may be, in a program with states in `state`."""
        return state

    @abstractmethod
    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless `population` is what these neurons need."""

    @abstractmethod
    def begin(self, zeros: Any, per_channel: PerChannel) -> Any:
        """State before local step 1; `zeros`, (N, ...), has the shape of the population."""

    @abstractmethod
    def advance(self, state: Any, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """One local step; `current` is the sum of all synapses, awake with the bias, (N, ...)."""

    @abstractmethod
    def spikes_sent(
        self, synapses: tuple[Synapse, ...], ranges: Mapping[str, IntRange]
    ) -> IntRange:
        """Values that its spikes may take, from its sources' `ranges`."""

    @abstractmethod
    def count_growth(
        self, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
    ) -> CountGrowth:
        """How far the sum of its spikes can go, from its sources' `growths`."""

    @abstractmethod
    def state_interval(self, currents: Currents) -> np.ndarray:
        """Lowest and highest state, before and after firing, over all local steps: (2, C)."""

    @abstractmethod
    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """Net count where the same input comes evenly, or a readout's sum, (N, ...).

        `total`, (N, ...), is the current of all steps, with the bias of all wake steps.
        """

    @abstractmethod
    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Neurons (n, ..., C) that would still fire in a further sleep step without any input."""


def check_no_bias(population: Population) -> None:
    """Raise ProgramError if the population has a bias."""
    if np.any(population.bias):
        raise ProgramError(
            f"a {population.neuron.kind} has no bias",
            node=population.name,
            found=f"{int(np.count_nonzero(population.bias))} biases that are not 0",
            allowed="0",
        )
