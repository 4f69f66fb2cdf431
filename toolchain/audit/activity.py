"""Activity of an integer network on a batch: net spike counts, final potentials, extremes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

from toolchain.engine.engine import AnyResult, Engine
from toolchain.engine.simulate import Way, quicker_way
from toolchain.engine.spike_encoding import channels_first
from toolchain.int_range import IntRange
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import Readout, ThresholdNeuron
from toolchain.simulator.reference import run_steps


@dataclass
class LayerExtremes:
    """Lowest and highest summed current of a step, and state before firing, so far."""

    current: IntRange = field(default_factory=lambda: IntRange(0, 0))
    state: IntRange = field(default_factory=lambda: IntRange(0, 0))

    def widen(self, low: int, high: int, lowest: int, highest: int) -> None:
        """Include the extremes of a block."""
        self.current = IntRange(min(self.current.low, low), max(self.current.high, high))
        self.state = IntRange(min(self.state.low, lowest), max(self.state.high, highest))

    def include(self, other: LayerExtremes) -> None:
        """Include the extremes of other samples."""
        current, state = other.current, other.state
        self.widen(current.low, current.high, state.low, state.high)


@dataclass(frozen=True)
class BatchCounts:
    """Results of one batch of n samples after all steps.

    Attributes
    ----------
    counts:
        Net spike count by spiking population (graded spikes summed), int64 (n, ...).
    events:
        Number of spikes by spiking population, whatever their magnitude: int64 (n, ...).
    magnitude:
        Sum of the spikes' magnitudes, int64 (n, ...).
    potential:
        Membrane potential at the end, int64 (n, ...), readouts included.
    outputs:
        Accumulator after each step by readout, int64 (T, n, ...).
    """

    counts: dict[str, np.ndarray]
    events: dict[str, np.ndarray]
    magnitude: dict[str, np.ndarray]
    potential: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    @property
    def readout(self) -> np.ndarray:
        """The only output of a classifier, int64 (T, n, K)."""
        (output,) = self.outputs.values()
        return output


KEPT_OF_A_NEURON = 40
"""Bytes per neuron of a `BatchCounts`: four int64, and temporary values."""
KEPT_BYTES = 1 << 30


def samples_at_once(program: IntProgram, most: int) -> int:
    """Number of samples per batch, up to `most`, whose counts need about `KEPT_BYTES`."""
    neurons = sum(prod(p.shape) for p in program.populations)
    return max(1, min(most, KEPT_BYTES // (KEPT_OF_A_NEURON * neurons)))


def quicker_engine(program: IntProgram, num_samples: int) -> Engine | None:
    """The fast engine; None for a small run if its loops are not compiled yet.

    Both give the same extremes of neurons and readouts. Those of pools and relays are defined by
    the engine: over all of a pool's source, also where no window lies, and no state of a relay.
    """
    alike = all(isinstance(p.neuron, ThresholdNeuron | Readout) for p in program.populations)
    way = quicker_way(program, num_samples) if alike else Way.FAST
    return Engine(program) if way is Way.FAST else None


def count_spikes(
    engine: Engine | None,
    program: IntProgram,
    inputs: np.ndarray,
    extremes: dict[str, LayerExtremes],
) -> BatchCounts:
    """Run graded spikes, int (n, ...), as one pass, and widen `extremes`, by population.

    Without an engine, the reference simulator runs them.

    Raises
    ------
    ProgramError, ValueRangeError
        See `Engine.run`.
    """
    found: BatchCounts = BatchCounts({}, {}, {}, {}, {})
    traces: dict[str, list[np.ndarray]] = {p.name: [] for p in program.readouts}

    def add(name: str, spikes: np.ndarray) -> None:
        """Add spikes, integers (T, n, ...)."""
        found.counts[name] = found.counts.get(name, 0) + spikes.sum(0, dtype=np.int64)
        found.events[name] = found.events.get(name, 0) + np.count_nonzero(spikes, axis=0)
        sizes = np.abs(spikes, dtype=np.int16).sum(0, dtype=np.int64)
        found.magnitude[name] = found.magnitude.get(name, 0) + sizes

    def listen(population: Population, first: int, result: AnyResult) -> None:
        name = population.name
        extremes[name].widen(*result.reach)
        last = channels_first(result.potential, population.shape)
        found.potential[name] = last.astype(np.int64)
        if result.sent is not None:
            add(name, result.sent.spikes())

    if engine is not None:
        for block in engine.run(inputs, listen=listen):
            for name, output in block.outputs.items():
                traces[name].append(output)
    else:
        for step in run_steps(program, inputs):
            for name, potential in step.membrane.items():
                extremes[name].widen(*step.reach[name])
                found.potential[name] = potential.numpy()
                if name in traces:
                    traces[name].append(potential.numpy()[None].copy())
            for name, spikes in step.spikes.items():
                add(name, spikes.numpy()[None].astype(np.int8))
    found.outputs.update((n, np.concatenate(t).astype(np.int64)) for n, t in traces.items())
    return found
