"""`evaluate`: a trained network and its spiking counterparts on test data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch

from hw_models.profile import load_profile
from spikeport.auditing import Told, operation_costs
from spikeport.backends import Backend, Lava, Reference
from spikeport.conversion import open_calibration
from spikeport.running import run_data
from spikeport.trained_network import TrainedNetwork, network_of
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.learning.data import Samples, open_boxes, open_split
from toolchain.learning.detection.checkpoint import load_detector
from toolchain.learning.detection.document import DetectorEvaluation
from toolchain.learning.detection.measure import DetectorMeasurement
from toolchain.learning.evaluation.evaluate_run import Lower, Measurement
from toolchain.learning.evaluation.results import Evaluation, made_by
from toolchain.learning.training.checkpoint import TrainedModel, load_checkpoint
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.recording import Comparison, Recording, compare

if TYPE_CHECKING:
    from toolchain.conversion.quantization.calibration import Calibration
    from toolchain.learning.evaluation.schema import (
        DetectorOnLava,
        MadeBy,
        OnLava,
        OperationsFound,
        Run,
    )

STEPS = (1, 2, 4, 8, 16)
LAVA_STEPS = 4
"""Time steps of the IF network that runs on Lava."""
LAVA_IMAGES_AT_ONCE = 4


def evaluate(
    run: str | Path,
    data: str,
    *,
    steps: Sequence[int] = STEPS,
    weight_bits: Sequence[int] = (8,),
    layer_steps: int | None = None,
    lava_samples: int = 0,
    target: str = "loihi2",
    rounding: str = "nearest",
    calibrate: str | None = None,
    calibration_samples: int = 256,
    relu_percentile: float | None = None,
    time_limit: float = 3600.0,
    command: str = "spikeport.evaluate",
    progress: Told | None = None,
) -> Evaluation:
    """Accuracies, layer errors and spike counts of a trained classifier.

    CQReLU networks become CIF with and without sleep, every spike count held against the quantized
    network. Choices belong to the held-out split: run this on test data once.

    Parameters
    ----------
    run:
        A checkpoint folder of `train`.
    data:
        A data source.
    steps:
        Time steps of the IF networks.
    layer_steps:
        Steps at which layers are compared; None for those of the training.
    lava_samples:
        How many samples run on Lava as well, every value compared.
    rounding, relu_percentile:
        As in `convert`; with `calibration_samples` samples of `calibrate`.
    command:
        Kept in the evaluation as what made it.

    Raises
    ------
    SpikeportError
        If the checkpoint or the data cannot be read, or the network not be converted.
    """
    told = progress or (lambda _what, _done, _total: None)
    started, folder = time.monotonic(), Path(run)
    checkpoint, samples = load_checkpoint(folder), open_split(data)
    config, network = checkpoint.config, network_of(checkpoint, folder)
    calibration = None
    if calibrate is not None:
        calibration = open_calibration(
            calibrate, network.quantizer, calibration_samples, config.seed
        )
    lower = _lowering(network, target, rounding, relu_percentile, calibration)
    measured = Measurement(checkpoint, samples, sorted(steps), weight_bits, layer_steps, told)
    measured.measure(lower)
    on_lava = None
    if lava_samples:
        if measured.counts is None:
            program = lower("if", Schedule(LAVA_STEPS), weight_bits[0])
        else:
            schedule = Schedule(config.levels, measured.counts["settle_steps"])
            program = lower("cif", schedule, weight_bits[0])
        few = samples.take(slice(0, lava_samples))
        on_lava = _on_lava(program, few, Lava(time_limit=time_limit), told)
    return Evaluation(
        run=_run_of(checkpoint),
        data=samples.name,
        num_samples=len(samples),
        made_by=_made_by(command, started),
        rows=tuple(measured.rows),
        gaps=measured.gaps,
        counts=measured.counts,
        lava=on_lava,
    )


def evaluate_detector(
    run: str | Path,
    data: str,
    *,
    steps: Sequence[int] = STEPS,
    weight_bits: int = 8,
    lava_samples: int = 0,
    target: str = "loihi2",
    time_limit: float = 3600.0,
    command: str = "spikeport.evaluate_detector",
    progress: Told | None = None,
) -> DetectorEvaluation:
    """Average precision of a trained detector and its spiking network, by steps.

    CQReLU detectors become CIF with sleep until nothing fires any more; every output is then held
    against the quantized network's, integer by integer.

    Parameters
    ----------
    run:
        A checkpoint folder of `detector train`.
    data:
        A source of images with boxes.
    steps, weight_bits, lava_samples, command:
        As in `evaluate`; on Lava each step is compared by digest.

    Raises
    ------
    SpikeportError
        If the checkpoint or the data cannot be read, or the network not be converted.
    """
    told = progress or (lambda _what, _done, _total: None)
    started, folder = time.monotonic(), Path(run)
    checkpoint = load_detector(folder)
    height, width = checkpoint.config.input_size
    images = open_boxes(data, (height, width))
    measured = DetectorMeasurement(checkpoint, images, steps, weight_bits, told)
    measured.measure(_lowering(network_of(checkpoint, folder), target))
    on_lava = None
    if lava_samples and measured.program is not None:
        few = images.take(slice(0, lava_samples))
        on_lava = _detector_on_lava(measured.program, few, time_limit, told)
    operations = measured.operations
    return DetectorEvaluation(
        run=_run_of(checkpoint),
        data=images.name,
        num_images=len(images),
        num_boxes=len(images.boxes),
        made_by=_made_by(command, started),
        rows=tuple(measured.rows),
        settle=measured.settle,
        exactness=measured.exactness,
        operations=cast(
            "OperationsFound | None",
            operations.describe(operation_costs()) if operations else None,
        ),
        lava=on_lava,
    )


def _run_of(checkpoint: TrainedModel[Any]) -> Run:
    return {
        "config": checkpoint.config.as_dict(),
        "epoch": checkpoint.epoch,
        "checkpoint_sha256": checkpoint.tensors_sha256,
        "history": checkpoint.history,
    }


def _made_by(command: str, started: float) -> MadeBy:
    seconds = time.monotonic() - started
    return made_by(command, seconds, torch=torch.__version__, numpy=numpy.__version__)


def _lowering(
    network: TrainedNetwork,
    target: str,
    rounding: str = "nearest",
    relu_percentile: float | None = None,
    calibration: Calibration | None = None,
) -> Lower:
    """Conversion of the network with the caller's options."""
    limits = load_profile(target).as_target_limits()

    def lower(neuron: str, schedule: Schedule, bits: int) -> IntProgram:
        return convert(
            network.model,
            network.quantizer,
            ConversionOptions(
                neuron, schedule, bits, rounding=rounding, relu_percentile=relu_percentile
            ),
            limits,
            name=network.name,
            provenance=network.provenance,
            calibration=calibration,
        ).program

    return lower


def _compared(
    program: IntProgram, data: Samples, lava: Backend, record: str, told: Told
) -> tuple[Recording, Comparison]:
    """A run on Lava, compared with the reference simulator's."""
    runs = []
    for backend in (Reference(), lava):
        name = f"{backend.name}: {program.name}"
        runs.append(run_data(program, data, backend, record, partial(told, name)))
    return runs[1], compare(*runs)


def _on_lava(program: IntProgram, data: Samples, lava: Lava, told: Told) -> OnLava:
    """Every spike, membrane potential and logit of a Lava run against the reference simulator."""
    found, comparison = _compared(program, data, lava, "full", told)
    return {
        "samples": len(data),
        "steps": program.schedule.num_steps,
        "weight_bits": program.weight_bits,
        "values": comparison.compared,
        "mismatches": sum(comparison.mismatches.values()),
        "accuracy": found.accuracy(),
        "program_hash": program.hash,
    }


def _detector_on_lava(
    program: IntProgram, data: Samples, time_limit: float, told: Told
) -> DetectorOnLava:
    """Every step of every layer of a Lava run against the reference simulator."""
    batch = min(LAVA_IMAGES_AT_ONCE, len(data))
    lava = Lava("fast", batch=batch, time_limit=time_limit)
    _, comparison = _compared(program, data, lava, "digest", told)
    return {
        "samples": len(data),
        "steps": program.schedule.num_steps,
        "weight_bits": program.weight_bits,
        "compared": comparison.compared,
        "mismatches": comparison.total,
        "program_hash": program.hash,
    }
