"""Measurement of one point of a sweep, in any process that has access to the files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from toolchain.accuracy import Accuracy
from toolchain.audit.chip_fit import Chip
from toolchain.audit.layer_cores import LayerChip
from toolchain.engine.simulate import simulate
from toolchain.errors import SpikeportError
from toolchain.learning.data import Dataset, input_spikes, open_split
from toolchain.program.int_program import IntProgram
from toolchain.recording import Mode
from toolchain.sweep.grid import Point


@dataclass(frozen=True)
class Result:
    """The result of one point.

    Attributes
    ----------
    correct, total:
        Number of samples predicted as labelled, and of samples.
    synops:
        Synaptic operations per sample.
    latency:
        Steps until the prediction.
    cores:
        Number of cores of the target.
    seconds:
        Duration of the measurement.
    error:
        Reason of a failure, in one line; then all numbers are 0.
    """

    key: str
    point: Point
    correct: int = 0
    total: int = 0
    synops: float = 0.0
    latency: int = 0
    cores: int = 0
    program_hash: str = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, 0 .. 1; 0 if nothing was run."""
        return self.correct / self.total if self.total else 0.0


Convert = Callable[[Point], IntProgram]
"""Converts the network of a point by its settings, in any process."""


@lru_cache(maxsize=2)
def _data(source: str) -> Dataset:
    return open_split(source)


def measure(key: str, point: Point, convert: Convert, data: str, chip: Chip | LayerChip) -> Result:
    """Convert and run one point; a failed conversion is a result with an error."""
    started = time.perf_counter()
    try:
        found = _measured(key, point, convert, data, chip)
    except SpikeportError as error:
        told = error.message if error.found is None else f"{error.message}: {error.found}"
        return Result(key, point, seconds=time.perf_counter() - started, error=told)
    return found


def _measured(
    key: str, point: Point, convert: Convert, data: str, chip: Chip | LayerChip
) -> Result:
    started = time.perf_counter()
    dataset, program = _data(data), convert(point)
    inputs = input_spikes(program.input, dataset)
    if program.input.per_step:
        inputs = inputs[:, : point.steps]
    recording = simulate(program, inputs, mode=Mode.DIGEST, labels=dataset.labels)
    accuracy = Accuracy.of(recording.logits, dataset.labels)
    return Result(
        key,
        point,
        accuracy.correct,
        accuracy.total,
        sum(recording.meta["synops"].values()) / len(inputs),
        program.schedule.num_steps,
        chip.fit(program).cores,
        program.hash,
        time.perf_counter() - started,
    )
