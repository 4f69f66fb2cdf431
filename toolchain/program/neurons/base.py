"""The interface of a neuron: all that the program, its proofs and the simulator need."""

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
    """The result of one step.

    Attributes
    ----------
    potential:
        Membrane potential after firing, as recordings store it.
    spikes:
        Spikes sent; None from a readout.
    watched:
        Values whose range a run watches: those before firing.
    """

    state: Any
    potential: Any
    spikes: Any
    watched: Any


@dataclass(frozen=True)
class CountGrowth:
    """Bounds of the net count added per wake step and per step of any kind."""

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

    Arrays are NumPy arrays or torch tensors: the rules use operators only.

    Attributes
    ----------
    kind:
        Name of the neuron in files.
    array_names, integer_names, real_names:
        Names of the parameters that files store: int32 (C,), one integer, and one float64.
    watched:
        Name of `Step.watched` in messages.
    graded:
        Whether spikes are sums of either sign, whose net count may become negative.
    """

    kind: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]] = ()
    integer_names: ClassVar[tuple[str, ...]] = ()
    real_names: ClassVar[tuple[str, ...]] = ()
    watched: ClassVar[str]
    graded: ClassVar[bool] = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Integer parameters by name, int32 (C,) each."""
        return {name: getattr(self, name) for name in self.array_names}

    def integers(self) -> dict[str, int]:
        """Integer parameters by name, one per population."""
        return {name: getattr(self, name) for name in self.integer_names}

    def reals(self) -> dict[str, float]:
        """Real parameters by name, one float per population."""
        return {name: getattr(self, name) for name in self.real_names}

    def watch_limits(self, state: IntRange) -> IntRange:
        """Range of `Step.watched`, in a program with states in `state`."""
        return state

    @abstractmethod
    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless `population` is valid for these neurons."""

    @abstractmethod
    def begin(self, zeros: Any, per_channel: PerChannel) -> Any:
        """State before local step 1; `zeros`, (N, ...), has the shape of the population."""

    @abstractmethod
    def advance(self, state: Any, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """Compute one local step; `current`, (N, ...), sums all synapses and, awake, the bias."""

    @abstractmethod
    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """Range of the spikes, from the spike ranges and shapes of the sources by name."""

    @abstractmethod
    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """Bounds of the sum of the spikes, from those and the shapes of the sources by name."""

    @abstractmethod
    def state_interval(self, currents: Currents) -> np.ndarray:
        """Lowest and highest state, before and after firing, over all local steps: (2, C)."""

    @abstractmethod
    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """Net spike count once settled, or if currents come evenly over time; or a readout's sum.

        `total`, (N, ...), is the current of all steps, with the bias of all wake steps.
        """

    @abstractmethod
    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Number of neurons, of (n, ..., C), that would still fire without any input."""


def check_no_bias(population: Population) -> None:
    """Raise ProgramError if the population has a bias."""
    if np.any(population.bias):
        raise ProgramError(
            f"a {population.neuron.kind} has no bias",
            node=population.name,
            found=f"{int(np.count_nonzero(population.bias))} biases that are not 0",
            allowed="0",
        )
