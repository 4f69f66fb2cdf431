"""Integer programs on a data set: outputs after fewer steps, and counts against the closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolchain.evaluation.summary import box
from toolchain.program.int_program import IntProgram
from toolchain.simulator.quantized_network import quantized_counts
from toolchain.simulator.reference import run_batches

BATCH = 32
"""Samples a pass: every membrane potential of every step is held at once."""
Progress = Callable[[int, int], None]


def readouts(
    program: IntProgram,
    inputs: np.ndarray,
    steps: Sequence[int],
    progress: Progress | None = None,
) -> dict[int, np.ndarray]:
    """Readout int64 (N, K) after the first T steps, by T.

    Neurons only look back, so what a program gives after T steps is what it gives when it stops
    there.
    """
    parts: dict[int, list[np.ndarray]] = {t: [] for t in steps}
    name = program.readout.name
    for start, _, membrane in run_batches(program, inputs, BATCH):
        for t in steps:
            parts[t].append(membrane[name][t - 1].astype(np.int64))
        if progress:
            progress(min(start + BATCH, len(inputs)), len(inputs))
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

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "neurons": self.neurons,
            "too_many": self.too_many / self.neurons,
            "too_few": self.too_few / self.neurons,
            "wrong": self.too_many + self.too_few,
            "silent_images": self.silent,
            "relative_error": box(np.concatenate(self.relative_errors)),
        }


@dataclass(frozen=True)
class CountComparison:
    """A program's run against its quantized network.

    Attributes
    ----------
    logits, quantized_logits:
        Readouts int64 (N, K) of the spiking program and of the quantized network.
    layers:
        By spiking population.
    last_active_step:
        Last local step in which any neuron of any sample fired.
    unequal_images:
        Samples with any different count or readout.
    """

    logits: np.ndarray
    quantized_logits: np.ndarray
    layers: dict[str, CountError]
    last_active_step: int
    unequal_images: int


def compare_counts(
    program: IntProgram, inputs: np.ndarray, progress: Progress | None = None
) -> CountComparison:
    """Run `program` and its quantized network on graded spikes (N, ...)."""
    layers = {p.name: CountError() for p in program.spiking}
    logits, expected_logits, last, unequal = [], [], 0, 0
    for start, spikes, membrane in run_batches(program, inputs, BATCH):
        expected, readout = quantized_counts(program, inputs[start : start + BATCH])
        found = membrane[program.readout.name][-1].astype(np.int64)
        wrong = (found != readout).any(axis=1)
        for name, error in layers.items():
            counts = spikes[name].sum(axis=0, dtype=np.int64)
            error.add(counts, expected[name])
            wrong |= (counts != expected[name]).reshape(len(counts), -1).any(axis=1)
            active = spikes[name].reshape(len(spikes[name]), -1).any(axis=1)
            last = max(last, int(np.flatnonzero(active).max(initial=-1)) + 1)
        logits.append(found)
        expected_logits.append(readout)
        unequal += int(wrong.sum())
        if progress:
            progress(min(start + BATCH, len(inputs)), len(inputs))
    return CountComparison(
        np.concatenate(logits), np.concatenate(expected_logits), layers, last, unequal
    )
