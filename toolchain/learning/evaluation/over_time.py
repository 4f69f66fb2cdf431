"""Sequences on an integer network: its answer after each step, and what the steps cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from toolchain.audit.activity import LayerExtremes, count_spikes, samples_at_once
from toolchain.audit.energy import Cost, Counted, Operations
from toolchain.engine.engine import Engine
from toolchain.learning.data import Dataset
from toolchain.learning.evaluation.results import integer
from toolchain.learning.evaluation.schema import OperationsFound, OverTime
from toolchain.program.int_program import IntProgram
from toolchain.progress import Progress
from toolchain.workers import Work, Workers

BATCH = 64
"""Samples at a time at most, of which every layer's counts are kept."""


@dataclass(frozen=True, eq=False)
class SequenceRun:
    """A program's run on sequences.

    Attributes
    ----------
    neuron:
        As in `results.Row`.
    outputs:
        Readout after each step, int64 (T, N, K).
    """

    neuron: str
    outputs: np.ndarray
    operations: Operations
    data: Dataset

    @classmethod
    def of(
        cls,
        program: IntProgram,
        neuron: str,
        inputs: np.ndarray,
        data: Dataset,
        progress: Progress,
        workers: Workers,
    ) -> SequenceRun:
        """Run `program` on the graded spikes of `data`, int (N, T, ...)."""
        operations, outputs = Operations(program), []
        for part, counted in workers.over_samples(Work(_part, program), inputs, progress):
            outputs.append(part)
            operations.counted.include(counted)
        return cls(neuron, np.concatenate(outputs, axis=1), operations, data)

    def describe(self, costs: Mapping[str, Cost]) -> OverTime:
        """What is kept of it, see `schema.OverTime`; `costs` as in `Operations.describe`."""
        labels, program = self.data.labels, self.operations.program
        right = (self.outputs.argmax(axis=2) == labels).sum(axis=1)
        alone = largest_alone(self.outputs, labels)
        from_there_on = np.logical_and.accumulate(alone[::-1])[::-1]
        events = self.data.samples.sum(dtype=np.int64) if self.data.are_counts else None
        return {
            "arithmetic": integer(program.weight_bits),
            "neuron": self.neuron,
            "wake_steps": program.schedule.wake_steps,
            "samples": len(labels),
            "correct": right.tolist(),
            "first_right": _by_first_step(alone),
            "right_for_good": _by_first_step(from_there_on),
            "camera_events": None if events is None else int(events) / len(labels),
            "operations": cast("OperationsFound", self.operations.describe(costs)),
        }


def largest_alone(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the label's output is larger than all others: bool (T, N), of (T, N, K) and (N,).

    A network that has not answered yet has equal outputs, and so is not right by chance.
    """
    own = np.take_along_axis(outputs, labels[None, :, None], axis=2)
    alone: np.ndarray = (outputs >= own).sum(axis=2) == 1
    return alone


def median_step(by_step: Sequence[int], samples: int) -> int | None:
    """The step, from 1, by which something happened in half of all samples; None if in fewer.

    Parameters
    ----------
    by_step:
        Number of samples by step.
    """
    reached = np.flatnonzero(2 * np.cumsum(by_step) >= samples)
    return int(reached[0]) + 1 if len(reached) else None


def _by_first_step(happened: np.ndarray) -> list[int]:
    """Number of samples by the first step at which something happened, of bool (T, N)."""
    first = happened.argmax(axis=0)[happened.any(axis=0)]
    return np.bincount(first, minlength=len(happened)).tolist()


def _part(
    program: IntProgram, inputs: np.ndarray, progress: Progress | None
) -> tuple[np.ndarray, Counted]:
    """Readout after each step, int64 (T, n, K), and operations."""
    engine, operations, outputs = Engine(program), Operations(program), []
    extremes = {p.name: LayerExtremes() for p in program.populations}
    size = samples_at_once(program, BATCH)
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        counts = count_spikes(engine, program, batch, extremes)
        operations.add(batch, counts)
        outputs.append(counts.readout)
        if progress:
            progress(start + len(batch), len(inputs))
    return np.concatenate(outputs, axis=1), operations.counted
