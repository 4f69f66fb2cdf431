"""The populations of a fast block: one object each, advanced by one local step at a time.

A stage sums the currents of its sources' spikes, event by event, and lets its neurons
fire. Arrays are in Lava's order after the batch axis, (B, W, H, C) or (B, F).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from hw_models.axes import lava_shape
from hw_models.fast import kernels
from hw_models.fast.event_sums import aligned_zeros
from hw_models.fast.events import SUM_LIMIT, make_events
from toolchain.errors import TargetError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program import neurons
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import WindowSynapse


class Stage(ABC):
    """One population for a batch of samples.

    Parameters
    ----------
    v:
        Membrane potentials, int32 (B, ...), owned by the process; 0 for populations without any.

    Attributes
    ----------
    spikes:
        Spikes of the last step, int8 (B, ...); accumulator of a readout, int32.
    """

    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        self.population = population
        self.v = v
        self.spikes: np.ndarray = np.zeros(v.shape, np.int8)
        self._limits = program.state_range
        self._total = aligned_zeros(v.shape, np.int32)
        self._per_channel = (-1, v.shape[-1])
        self._bias = np.array(population.bias)
        self._no_bias = np.zeros_like(self._bias)
        self._events = [
            make_events(
                synapse, program.source_shape(synapse.source), program.spike_range(synapse.source)
            )
            for synapse in population.synapses
            if not isinstance(synapse, WindowSynapse)
        ]
        self._is_first = all(s.source == INPUT for s in population.synapses)
        self._heard: list[np.ndarray] = []
        _check_sums(program, population)

    @property
    def sent(self) -> np.ndarray | None:
        """Spikes of the last step, int8 (B, ...); None from a readout."""
        return self.spikes

    @abstractmethod
    def start(self) -> None:
        """Reset the state before local step 1."""

    @abstractmethod
    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        """Compute one local step from the spikes that arrive by each synapse."""

    def _sum_up(self, arrived: Sequence[np.ndarray]) -> np.ndarray:
        """Sum of all currents, int32 (N, C), checked against 24 bits."""
        if self._is_first:
            # A static input repeats itself on every wake step.
            if self._heard and all(map(np.array_equal, self._heard, arrived)):
                return self._total.reshape(self._per_channel)
            self._heard = [spikes.copy() for spikes in arrived]
        self._total[...] = 0
        for events, spikes in zip(self._events, arrived, strict=True):
            events.send(spikes, self._total)
        self._watch("summed current", int(self._total.min()), int(self._total.max()))
        return self._total.reshape(self._per_channel)

    def _bias_at(self, local_step: int, wake_steps: int) -> np.ndarray:
        return self._bias if local_step <= wake_steps else self._no_bias

    def _watch(self, what: str, low: int, high: int, limits: IntRange | None = None) -> None:
        limits = limits or self._limits
        if not limits.contains(low, high):
            raise ValueRangeError(
                f"the {what} left its range during the run",
                node=self.population.name,
                found=f"{low} .. {high}",
                allowed=str(limits),
                remedy="use fewer weight bits or steps",
            )


def _check_sums(program: IntProgram, population: Population) -> None:
    """Raise TargetError unless every partial sum, in any order, fits int32."""
    bound = sum(largest_sum(s, program.spike_range(s.source)) for s in population.synapses)
    if bound > SUM_LIMIT:
        raise TargetError(
            "the fast models add up in 32 bits",
            node=population.name,
            found=bound,
            allowed=f"<= {SUM_LIMIT}",
            remedy="use fewer weight bits; the reference simulator has wider sums",
        )


class _IntegrateAndFireStage(Stage):
    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        super().__init__(program, population, v)
        neuron = population.neuron
        assert isinstance(neuron, neurons.ThresholdNeuron)
        self._threshold, self._initial = np.array(neuron.threshold), neuron.initial_potential

    def start(self) -> None:
        self.v[...] = self._initial

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        reach = kernels.fire_if(
            self._sum_up(arrived),
            self._bias_at(local_step, wake_steps),
            self._threshold,
            self.v.reshape(self._per_channel),
            self.spikes.reshape(self._per_channel),
        )
        self._watch("membrane potential", *reach)


class _GradedIntegrateAndFireStage(_IntegrateAndFireStage):
    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        super().__init__(program, population, v)
        assert isinstance(population.neuron, neurons.GradedIntegrateAndFire)
        self._most = population.neuron.max_spike

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        reach = kernels.fire_graded(
            self._sum_up(arrived),
            self._bias_at(local_step, wake_steps),
            self._threshold,
            self._most,
            self.v.reshape(self._per_channel),
            self.spikes.reshape(self._per_channel),
        )
        self._watch("membrane potential", *reach)


class _ConsistentStage(Stage):
    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        super().__init__(program, population, v)
        neuron = population.neuron
        assert isinstance(neuron, neurons.ConsistentIntegrateAndFire)
        self._threshold, self._initial = np.array(neuron.threshold), neuron.initial_potential
        self._counts = np.zeros(v.shape, np.int32)

    def start(self) -> None:
        self.v[...] = self._initial
        self._counts[...] = 0

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        reach = kernels.fire_cif(
            self._sum_up(arrived),
            self._bias_at(local_step, wake_steps),
            self._threshold,
            self.v.reshape(self._per_channel),
            self._counts.reshape(self._per_channel),
            min(local_step, wake_steps),
            self.spikes.reshape(self._per_channel),
        )
        self._watch("membrane potential", *reach)


class _PoolStage(Stage):
    """A LIPool; `v` contains the largest count of each window."""

    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        super().__init__(program, population, v)
        (synapse,) = population.synapses
        if not isinstance(synapse, WindowSynapse):
            raise TargetError("a LIPool needs windows", node=population.name)
        self._geometry = tuple(
            pair[::-1]
            for pair in (synapse.kernel, synapse.stride, synapse.padding, synapse.dilation)
        )
        source = lava_shape(program.source_shape(synapse.source))
        self._counts = np.zeros((len(v), *source), np.int32)

    def start(self) -> None:
        self.v[...] = 0
        self._counts[...] = 0

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        kernel, stride, padding, dilation = self._geometry
        reach = kernels.fire_lipool(
            arrived[0], kernel, stride, padding, dilation, self._counts, self.v, self.spikes
        )
        self._watch("spike count", *reach)


class _RelayStage(Stage):
    def start(self) -> None:
        """Do nothing: a relay has no state."""

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        total = self._sum_up(arrived)
        limits = neurons.Relay.spike_limits
        self._watch("graded spike", int(total.min()), int(total.max()), limits)
        self.spikes[...] = total.reshape(self.spikes.shape)


class _ReadoutStage(Stage):
    def __init__(self, program: IntProgram, population: Population, v: np.ndarray) -> None:
        super().__init__(program, population, v)
        self.spikes = v

    @property
    def sent(self) -> None:
        return None

    def start(self) -> None:
        self.v[...] = 0

    def fire(self, arrived: Sequence[np.ndarray], local_step: int, wake_steps: int) -> None:
        self.v += self._sum_up(arrived).reshape(self.v.shape)
        self.v += self._bias_at(local_step, wake_steps)
        self._watch("accumulator", int(self.v.min()), int(self.v.max()))


_STAGES: dict[type, type[Stage]] = {
    neurons.IntegrateAndFire: _IntegrateAndFireStage,
    neurons.ConsistentIntegrateAndFire: _ConsistentStage,
    neurons.GradedIntegrateAndFire: _GradedIntegrateAndFireStage,
    neurons.LIPool: _PoolStage,
    neurons.Relay: _RelayStage,
    neurons.Readout: _ReadoutStage,
}


def make_stage(program: IntProgram, population: Population, v: np.ndarray) -> Stage:
    """The stage of a population, with its potentials in `v`, int32 (B, ...).

    Raises
    ------
    TargetError
        If the neuron or synapse is unknown, or sums may exceed 32 bits.
    """
    kind = type(population.neuron)
    if kind not in _STAGES:
        raise TargetError(
            "no fast model for this neuron", node=population.name, found=kind.__name__
        )
    return _STAGES[kind](program, population, v)
