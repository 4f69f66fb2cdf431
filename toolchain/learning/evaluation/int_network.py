"""Integer programs on a data set: outputs after fewer steps, and counts against the closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add

import numpy as np

from toolchain.engine.engine import Detail, Engine
from toolchain.errors import ConversionError
from toolchain.learning.evaluation.schema import CountsOfLayer, box
from toolchain.program.int_program import IntProgram
from toolchain.progress import Progress
from toolchain.simulator.quantized_network import quantized_counts
from toolchain.workers import Work, Workers


def readouts(
    program: IntProgram,
    inputs: np.ndarray,
    steps: Sequence[int],
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> dict[int, np.ndarray]:
    """Readout int64 (N, K) after the first T steps, by T.

    Neurons only look back, so what a program gives after T steps is what it gives when it stops
    there.
    """
    work = Work(_readouts_of_part, (program, steps))
    parts = (workers or Workers()).over_samples(work, inputs, progress)
    return {t: np.concatenate([part[t] for part in parts]) for t in steps}


def _readouts_of_part(
    shared: tuple[IntProgram, Sequence[int]], inputs: np.ndarray, progress: Progress | None
) -> dict[int, np.ndarray]:
    program, steps = shared
    parts: dict[int, list[np.ndarray]] = {t: [] for t in steps}
    for where, blocks in Engine(program).passes(inputs):
        for block in blocks:
            for t in steps:
                if block.first < t <= block.first + block.steps:
                    parts[t].append(block.readout[t - block.first - 1].astype(np.int64))
        if progress:
            progress(where.stop, len(inputs))
    return {t: np.concatenate(p) for t, p in parts.items()}


@dataclass
class CountError:
    """Spike counts of a layer against those of the quantized network with the same integers.

    Attributes
    ----------
    too_many, too_few:
        Neurons with a higher or lower net count.
    relative_errors:
        Of each image: sum |difference| / sum of the quantized network's counts.
    """

    neurons: int = 0
    too_many: int = 0
    too_few: int = 0
    silent: int = 0
    relative_errors: list[np.ndarray] = field(default_factory=list)

    def add(self, counts: np.ndarray, expected: np.ndarray) -> None:
        """Add a batch of net counts (n, ...)."""
        difference = (counts.astype(np.int64) - expected).reshape(len(counts), -1)
        self.neurons += difference.size
        self.too_many += int((difference > 0).sum())
        self.too_few += int((difference < 0).sum())
        signal = expected.reshape(len(counts), -1).sum(1)
        alive = signal > 0
        self.silent += int((~alive).sum())
        self.relative_errors.append(np.abs(difference).sum(1)[alive] / signal[alive])

    def describe(self) -> CountsOfLayer:
        """Share of neurons with wrong counts, and relative errors over the images, as JSON."""
        return {
            "neurons": self.neurons,
            "too_many": self.too_many / self.neurons,
            "too_few": self.too_few / self.neurons,
            "wrong": self.too_many + self.too_few,
            "silent_images": self.silent,
            "relative_error": box(np.concatenate(self.relative_errors)),
        }

    def __add__(self, other: CountError) -> CountError:
        """The errors of the samples of both, one after the other."""
        return CountError(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass
class CountComparison:
    """A run against the quantized network, up to some step.

    Attributes
    ----------
    logits:
        Readouts, int64 (n, K) by batch.
    layers:
        By spiking population.
    unequal_images:
        Samples with any different count or readout.
    """

    layers: dict[str, CountError]
    logits: list[np.ndarray] = field(default_factory=list)
    unequal_images: int = 0

    def add(
        self,
        counts: dict[str, np.ndarray],
        logits: np.ndarray,
        expected: dict[str, np.ndarray],
        expected_logits: np.ndarray,
    ) -> None:
        """Add a batch: counts by population, (n, ...), and readouts (n, K)."""
        wrong = (logits != expected_logits).any(axis=1)
        for name, error in self.layers.items():
            error.add(counts[name], expected[name])
            wrong |= (counts[name] != expected[name]).reshape(len(wrong), -1).any(axis=1)
        self.logits.append(logits)
        self.unequal_images += int(wrong.sum())

    def __add__(self, other: CountComparison) -> CountComparison:
        """The comparison of the samples of both, one after the other."""
        return CountComparison(
            {name: error + other.layers[name] for name, error in self.layers.items()},
            self.logits + other.logits,
            self.unequal_images + other.unequal_images,
        )


@dataclass(frozen=True)
class WakeSleepComparison:
    """A program against its quantized network, at the end of the wake steps and settled.

    Attributes
    ----------
    settle_steps:
        Sleep steps until no neuron of any sample fired any more, or until the schedule ended.
    quantized_logits:
        Readouts of the quantized network, int64 (N, K).
    """

    awake: CountComparison
    settled: CountComparison
    settle_steps: int
    quantized_logits: np.ndarray

    def __add__(self, other: WakeSleepComparison) -> WakeSleepComparison:
        """The comparison of the samples of both, one after the other."""
        return WakeSleepComparison(
            self.awake + other.awake,
            self.settled + other.settled,
            max(self.settle_steps, other.settle_steps),
            np.concatenate([self.quantized_logits, other.quantized_logits]),
        )


def compare_counts(
    program: IntProgram,
    inputs: np.ndarray,
    progress: Progress | None = None,
    *,
    must_settle: bool = True,
    workers: Workers | None = None,
) -> WakeSleepComparison:
    """Run `program` on graded spikes (N, ...), until settled where its schedule lets it sleep.

    Raises
    ------
    ConversionError
        If a sample has not settled when the schedule ends, and `must_settle`.
    """
    work = Work(_compare_part, (program, must_settle))
    return reduce(add, (workers or Workers()).over_samples(work, inputs, progress))


def _compare_part(
    shared: tuple[IntProgram, bool], inputs: np.ndarray, progress: Progress | None
) -> WakeSleepComparison:
    program, must_settle = shared
    awake, settled = (
        CountComparison({p.name: CountError() for p in program.spiking}) for _ in range(2)
    )
    quantized, longest = [], 0
    wake, sleep = program.schedule.wake_steps, program.schedule.sleep_steps
    for where, blocks in Engine(program, block=wake).passes(inputs, Detail.SPIKES):
        chunk = inputs[where]
        expected, outputs = quantized_counts(program, chunk)
        expected_logits = outputs[program.readout.name]
        counts = {p.name: np.zeros((len(chunk), *p.shape), np.int64) for p in program.spiking}
        asleep, silent = 0, sleep == 0
        for block in blocks:
            for name, spikes in block.spikes.items():
                counts[name] += spikes.sum(axis=0, dtype=np.int32)
            logits = block.readout[-1].astype(np.int64)
            if block.awake:
                awake.add(counts, logits, expected, expected_logits)
                continue
            asleep += block.active_steps
            silent = block.active_steps < block.steps
            if silent:
                break
        if must_settle and not silent:
            raise ConversionError(
                "the network does not settle", node=program.name, found=f"{asleep} sleep steps"
            )
        settled.add(counts, logits, expected, expected_logits)
        quantized.append(expected_logits)
        longest = max(longest, asleep)
        if progress:
            progress(where.stop, len(inputs))
    return WakeSleepComparison(awake, settled, longest, np.concatenate(quantized))
