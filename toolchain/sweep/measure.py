"""Measurement of one point of a sweep, in any process that has access to the files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

from toolchain.accuracy import Accuracy
from toolchain.audit.chip_fit import Chip, fit
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.engine.simulate import simulate
from toolchain.errors import SpikeportError
from toolchain.int_range import TargetLimits
from toolchain.learning.data import Dataset, input_spikes, open_split
from toolchain.learning.training.checkpoint import Checkpoint, load_checkpoint
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


_TRACING = Lock()
"""Lock for tracing: torch.fx replaces `Module.__call__` for the whole process meanwhile."""


@lru_cache(maxsize=4)
def _checkpoint(run: str) -> Checkpoint:
    return load_checkpoint(Path(run))


@lru_cache(maxsize=2)
def _data(source: str) -> Dataset:
    return open_split(source)


def measure(key: str, point: Point, data: str, limits: TargetLimits, chip: Chip) -> Result:
    """Convert and run one point; a failed conversion is a result with an error."""
    started = time.perf_counter()
    try:
        found = _measured(key, point, data, limits, chip)
    except SpikeportError as error:
        told = error.message if error.found is None else f"{error.message}: {error.found}"
        return Result(key, point, seconds=time.perf_counter() - started, error=told)
    return found


def _measured(key: str, point: Point, data: str, limits: TargetLimits, chip: Chip) -> Result:
    started = time.perf_counter()
    checkpoint, dataset = _checkpoint(point.run), _data(data)
    options = ConversionOptions(point.neuron, point.schedule, point.weight_bits)
    name = Path(point.run).name
    with _TRACING:
        program = convert(
            checkpoint.model, checkpoint.quantizer(), options, limits, name=name
        ).program
    inputs = input_spikes(program.input, dataset)
    recording = simulate(program, inputs, mode=Mode.DIGEST, labels=dataset.labels)
    accuracy = Accuracy.of(recording.logits, dataset.labels)
    return Result(
        key,
        point,
        accuracy.correct,
        accuracy.total,
        sum(recording.meta["synops"].values()) / len(inputs),
        program.schedule.num_steps,
        fit(program, chip).cores,
        program.hash,
        time.perf_counter() - started,
    )
