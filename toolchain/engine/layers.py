"""One population over a block of steps: its currents, its neurons, and the watching of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from toolchain.engine import kernels
from toolchain.engine.dispatch import count_spikes
from toolchain.engine.identity_synapses import part_direct
from toolchain.engine.neuron_layout import WORTH_A_THREAD, Reach, Rows, in_threads, joined
from toolchain.engine.spike_encoding import INT8, CodedSpikes, coded_offset, plane_of
from toolchain.engine.synaptic_sum import SynapticSum
from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.bounds import PopulationBounds
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.synapse import WindowSynapse
from toolchain.simulator.watch import watch
from toolchain.threads import allowed_threads, share

SpikesBySource = Mapping[str, CodedSpikes]
"""Spikes by source; on sleep steps the input is absent."""
INT32 = IntRange.signed(32)
CURRENTS = 4 << 20
"""Bytes of currents (float32) summed before the neurons take them.

Few enough to stay in the cache and for the allocator to reuse the memory; enough samples for
efficient convolutions.
"""


@dataclass(frozen=True)
class StepContext:
    """The steps of a block.

    Attributes
    ----------
    steps:
        Number of steps.
    wakes:
        Number of wake steps before the block.
    traced:
        Whether the membrane potential after each step is requested.
    kept:
        Whether a later block or a listener needs the state after the block.
    """

    steps: int
    wakes: int
    awake: bool
    traced: bool
    kept: bool

    @property
    def begins(self) -> bool:
        """Whether no step precedes the block."""
        return self.awake and not self.wakes


@dataclass(frozen=True)
class LayerResult:
    """Result of a layer in a block.

    Attributes
    ----------
    sent:
        Spikes sent; None from a readout.
    potential:
        int (n, H, W, C), at the end of the block; empty if it was not stored.
    trace:
        int (T, n, H, W, C), after each step; empty if not requested.
    reach:
        Extremes of the summed current and of the state before firing.
    quiet:
        Whether it is known, without a search, that no spike is sent.
    """

    sent: CodedSpikes | None
    potential: np.ndarray
    trace: np.ndarray
    reach: Reach
    quiet: bool = False


class EngineLayer(ABC):
    """A population prepared to run; `start` makes the state, the only part that changes."""

    def __init__(
        self, program: IntProgram, population: Population, bound: PopulationBounds
    ) -> None:
        self.population = population
        self._plane = plane_of(population.shape)
        self._limits = program.state_range
        reach = (bound.current.low, bound.current.high, bound.state.low, bound.state.high)
        self._integer = np.int32 if INT32.contains(min(reach), max(reach)) else np.int64
        self._offset = 0
        if not isinstance(population.neuron, Readout):
            self._offset = coded_offset(program.spike_range(population.name)) or 0
        self._direct, summed = part_direct(program, population)
        self._sums = [
            (
                synapse.source,
                SynapticSum(
                    population.name,
                    synapse,
                    program.source_shape(synapse.source),
                    program.spike_range(synapse.source),
                ),
            )
            for synapse in summed
        ]

    @abstractmethod
    def start(self, samples: int) -> Any:
        """Uninitialised state of `samples` samples, which the first block sets."""

    @abstractmethod
    def run(self, state: Any, sent: SpikesBySource, moment: StepContext) -> LayerResult:
        """Advance `state` by a block of steps.

        Raises
        ------
        ValueRangeError
            If a sum or the state leaves its range.
        """

    def _unset(self, samples: int) -> np.ndarray:
        """Uninitialised potential, (n, H, W, C), which the first block sets."""
        return np.empty((samples, *self._plane), self._integer)

    def _initial(self, values: np.ndarray, rows: Rows, moment: StepContext) -> np.ndarray:
        """An initial potential per channel along a row, in the first block; empty later."""
        return self._along(values, rows) if moment.begins else np.empty(0, self._integer)

    def _rows(self, samples: int, moment: StepContext) -> tuple[Rows, list[slice]]:
        """The layer's rows, and its samples in parts of `CURRENTS` bytes, one or more a thread."""
        work = moment.steps * prod(self._plane)
        threads = min(allowed_threads(), max(1, samples * work // WORTH_A_THREAD))
        size = min(-(-samples // threads), max(1, CURRENTS // (4 * work)))
        starts = range(0, samples, size)
        parts = [slice(start, min(start + size, samples)) for start in starts]
        return Rows.of_layer(samples, self._plane, size), parts

    def _in_parts(
        self,
        kernel: kernels.Kernel,
        sent: SpikesBySource,
        rows_and_parts: tuple[Rows, list[slice]],
        moment: StepContext,
        *arguments: Any,
    ) -> Reach:
        """Run `kernel(current, unit, base, *direct, *arguments, start, stop)` part by part.

        Returns the extremes over all parts.
        """
        rows, parts = rows_and_parts
        direct = self._direct_spikes(sent, rows)

        def run(part: slice) -> Reach:
            where = rows.between(part)
            current, unit = self._current(sent, part, rows, moment)
            work = moment.steps * (where[1] - where[0]) * rows.width
            return in_threads(kernel, where, work, current, unit, where[0], *direct, *arguments)

        return joined(share(run, parts))

    def _direct_spikes(
        self, sent: SpikesBySource, rows: Rows
    ) -> tuple[np.ndarray, int, np.ndarray]:
        """Direct spikes (T or 1, rows, width) or empty, the byte for no spike, and the gain."""
        if self._direct is None or self._direct.source not in sent:
            nothing = np.empty((0, rows.count, rows.width), np.uint8)
            return nothing, 0, np.zeros(rows.width, self._integer)
        spikes = sent[self._direct.source]
        return rows.of(spikes.values), spikes.offset, self._along(self._direct.gain, rows)

    def _current(
        self, sent: SpikesBySource, part: slice, rows: Rows, moment: StepContext
    ) -> tuple[np.ndarray, int]:
        """Current (up to T, rows of the part, width) of all sums, and its unit."""
        arriving = [
            (rows.of(total(sent[name], part)), total.unit)
            for name, total in self._sums
            if name in sent
        ]
        if len(arriving) == 1:
            return arriving[0]
        first, end = rows.between(part)
        where = (0, end - first)
        if not arriving:
            return np.zeros((1, end - first, rows.width), self._integer), 1
        lengths = {len(current) for current, _ in arriving}
        steps = lengths.pop() if len(lengths) == 1 else moment.steps
        summed = np.empty((steps, end - first, rows.width), self._integer)
        for index, (current, unit) in enumerate(arriving):
            fills = index == 0
            in_threads(kernels.accumulate, where, summed.size, summed, current, unit, fills)
        return summed, 1

    def _along(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        """A value per channel, repeated along a row."""
        sites = rows.width // len(values)
        return values.astype(self._integer)[None].repeat(sites, axis=0).ravel()

    def _bias(self, rows: Rows, moment: StepContext) -> np.ndarray:
        """The bias along a row; zeros on sleep steps."""
        bias = self.population.bias
        return self._along(bias if moment.awake else np.zeros_like(bias), rows)

    def _new_trace(self, samples: int, moment: StepContext) -> np.ndarray:
        steps = moment.steps if moment.traced else 0
        return np.empty((steps, samples, *self._plane), self._integer)

    def _new_spikes(self, samples: int, moment: StepContext) -> CodedSpikes:
        values = np.empty((moment.steps, samples, *self._plane), np.uint8)
        return CodedSpikes(values, self._offset, self.population.shape)

    def _hears(self, sent: SpikesBySource) -> bool:
        """Whether any source of the population has sent spikes."""
        return any(synapse.source in sent for synapse in self.population.synapses)

    def _quiet(self, potential: np.ndarray, moment: StepContext) -> LayerResult:
        """Result of a block in which no spike arrives and none is sent."""
        samples, steps = len(potential), moment.steps
        spikes = CodedSpikes.silence(steps, samples, self._offset, self.population.shape)
        traced = steps if moment.traced else 0
        trace = np.broadcast_to(potential, (traced, *potential.shape))
        return LayerResult(spikes, potential, trace, (0, 0, 0, 0), quiet=True)

    def _watch(self, what: str, reach: Reach, limits: IntRange) -> None:
        """Raise ValueRangeError if the extremes of a kernel exceed the limits."""
        name = self.population.name
        watch(name, "summed current", int(reach[0]), int(reach[1]), self._limits)
        watch(name, what, int(reach[2]), int(reach[3]), limits)


class _IntegrateAndFireLayer(EngineLayer):
    """IF neurons, graded or not; the state is the potential (n, H, W, C)."""

    def start(self, samples: int) -> np.ndarray:
        return self._unset(samples)

    def run(self, state: np.ndarray, sent: SpikesBySource, moment: StepContext) -> LayerResult:
        neuron, (rows, parts) = self.population.neuron, self._rows(len(state), moment)
        assert isinstance(neuron, IntegrateAndFire | GradedIntegrateAndFire)
        spikes, trace = self._new_spikes(len(state), moment), self._new_trace(len(state), moment)
        reach = self._in_parts(
            kernels.integrate_and_fire,
            sent,
            (rows, parts),
            moment,
            self._bias(rows, moment),
            self._along(neuron.threshold, rows),
            neuron.largest_spike,
            self._initial(neuron.initial_potential, rows, moment),
            rows.of(state),
            moment.kept,
            rows.of(spikes.values),
            rows.of(trace),
        )
        self._watch("membrane potential", reach, self._limits)
        return LayerResult(spikes, state if moment.kept else state[:0], trace, reach)


@dataclass
class _ConsistentState:
    """Potential and net spike count, (n, H, W, C) each, and whether any fired in the last step."""

    potential: np.ndarray
    counts: np.ndarray
    fired: bool = True


class _ConsistentLayer(EngineLayer):
    """CIF neurons; asleep, a neuron that has not fired stays silent until a spike arrives."""

    def __init__(
        self, program: IntProgram, population: Population, bound: PopulationBounds
    ) -> None:
        super().__init__(program, population, bound)
        small = INT8.contains(0, program.schedule.wake_steps)
        self._count = np.int8 if small else np.int32

    def start(self, samples: int) -> _ConsistentState:
        counts = np.empty((samples, *self._plane), self._count)
        return _ConsistentState(self._unset(samples), counts)

    def run(
        self, state: _ConsistentState, sent: SpikesBySource, moment: StepContext
    ) -> LayerResult:
        neuron = self.population.neuron
        assert isinstance(neuron, ConsistentIntegrateAndFire)
        if not moment.awake and not state.fired and not self._hears(sent):
            return self._quiet(state.potential, moment)
        samples = len(state.potential)
        rows, parts = self._rows(samples, moment)
        spikes, trace = self._new_spikes(samples, moment), self._new_trace(samples, moment)
        reach = self._in_parts(
            kernels.consistent_integrate_and_fire,
            sent,
            (rows, parts),
            moment,
            self._bias(rows, moment),
            self._along(neuron.threshold, rows),
            self._initial(neuron.initial_potential, rows, moment),
            rows.of(state.potential),
            moment.kept,
            rows.of(state.counts),
            moment.wakes,
            moment.awake,
            rows.of(spikes.values),
            rows.of(trace),
        )
        self._watch("membrane potential", reach, self._limits)
        state.fired = bool(count_spikes(spikes.values[-1:], self._offset).any())
        potential = state.potential if moment.kept else state.potential[:0]
        return LayerResult(spikes, potential, trace, reach)


class _ReadoutLayer(EngineLayer):
    """A readout; the state is the accumulator (n, H, W, C), which is always traced."""

    def start(self, samples: int) -> np.ndarray:
        return self._unset(samples)

    def run(self, state: np.ndarray, sent: SpikesBySource, moment: StepContext) -> LayerResult:
        rows, parts = self._rows(len(state), moment)
        trace = np.empty((moment.steps, *state.shape), self._integer)
        reach = self._in_parts(
            kernels.read_out,
            sent,
            (rows, parts),
            moment,
            self._bias(rows, moment),
            self._initial(np.zeros(self._plane[2], self._integer), rows, moment),
            rows.of(state),
            rows.of(trace),
        )
        self._watch("accumulator", reach, self._limits)
        return LayerResult(None, state, trace, reach)


class _RelayLayer(EngineLayer):
    """A relay; its state is only zeros, its potential in recordings."""

    def start(self, samples: int) -> np.ndarray:
        return np.zeros((samples, *self._plane), self._integer)

    def run(self, state: np.ndarray, sent: SpikesBySource, moment: StepContext) -> LayerResult:
        if not self._hears(sent):
            return self._quiet(state, moment)
        rows, parts = self._rows(len(state), moment)
        spikes = self._new_spikes(len(state), moment)
        reach = self._in_parts(
            kernels.relay,
            sent,
            (rows, parts),
            moment,
            self._offset,
            rows.of(spikes.values),
        )
        self._watch("graded spike", reach, Relay.spike_limits)
        trace = self._new_trace(len(state), moment)
        trace[:] = 0
        return LayerResult(spikes, state, trace, (reach[0], reach[1], 0, 0))


class _PoolLayer(EngineLayer):
    """LIPool; the state is the source's counts and the largest sent, int32 (n, H, W, C) each."""

    def __init__(
        self, program: IntProgram, population: Population, bound: PopulationBounds
    ) -> None:
        super().__init__(program, population, bound)
        (synapse,) = population.synapses
        assert isinstance(synapse, WindowSynapse)
        self._synapse = synapse
        pairs = (synapse.kernel, synapse.stride, synapse.padding, synapse.dilation)
        self._geometry = [np.array(pair, np.int64) for pair in pairs]
        self._source_plane = plane_of(program.source_shape(synapse.source))

    def start(self, samples: int) -> tuple[np.ndarray, np.ndarray]:
        counts = np.zeros((samples, *self._source_plane), np.int32)
        return counts, np.zeros((samples, *self._plane), np.int32)

    def run(
        self, state: tuple[np.ndarray, np.ndarray], sent: SpikesBySource, moment: StepContext
    ) -> LayerResult:
        counts, largest = state
        if not self._hears(sent):
            return self._quiet(largest, moment)
        s, samples = self._synapse, len(largest)
        spikes, trace = self._new_spikes(samples, moment), self._new_trace(samples, moment)
        reach = in_threads(
            kernels.lipool,
            (0, samples),
            moment.steps * counts.size,
            sent[s.source].values,
            sent[s.source].offset,
            *self._geometry,
            counts,
            largest,
            spikes.values,
            trace,
        )
        arriving = sent[s.source].values
        low, high = (int(end) - sent[s.source].offset for end in (arriving.min(), arriving.max()))
        reach = (min(low, 0), max(high, 0), reach[2], reach[3])
        self._watch("spike count", reach, self._limits)
        return LayerResult(spikes, largest, trace, reach)


_LAYERS: dict[type, type[EngineLayer]] = {
    IntegrateAndFire: _IntegrateAndFireLayer,
    ConsistentIntegrateAndFire: _ConsistentLayer,
    GradedIntegrateAndFire: _IntegrateAndFireLayer,
    LIPool: _PoolLayer,
    Relay: _RelayLayer,
    Readout: _ReadoutLayer,
}


def make_layer(program: IntProgram, population: Population, bound: PopulationBounds) -> EngineLayer:
    """The layer for a population, whose sums and state stay within `bound`.

    Raises
    ------
    ProgramError
        If the engine does not know its neuron or synapse.
    ValueRangeError
        If a sum could exceed the exact range of float64.
    """
    kind = type(population.neuron)
    if kind not in _LAYERS:
        raise ProgramError("the engine does not run this neuron", found=kind.__name__)
    return _LAYERS[kind](program, population, bound)
