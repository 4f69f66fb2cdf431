"""`evaluate`: a network and its spiking counterparts on test data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch
from torch import nn

from hw_models.profile import load_profile
from spikeport.auditing import Told, operation_costs
from spikeport.backends import Backend, Lava, Reference
from spikeport.files import as_program
from spikeport.given_network import CALIBRATION_SAMPLES, GivenNetwork, OpenNetwork, described
from spikeport.running import run_data
from spikeport.samples import Data, steps_of, up_to
from spikeport.trained_network import network_of
from toolchain.conversion.passes.fold import trained_activations
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import ConversionError
from toolchain.learning.data import Samples, open_boxes, open_split
from toolchain.learning.data.torch_data import labelled
from toolchain.learning.detection.checkpoint import load_detector
from toolchain.learning.detection.document import DetectorEvaluation
from toolchain.learning.detection.measure import DetectorMeasurement
from toolchain.learning.evaluation.evaluate_run import Lower, Measurement, Subject, is_cif
from toolchain.learning.evaluation.results import Evaluation, made_by
from toolchain.learning.training.checkpoint import CLASSIFICATION, TrainedModel
from toolchain.output_policy import NETWORK
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.recording import Comparison, Recording, compare
from toolchain.workers import Workers, open_workers

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset

    from toolchain.learning.evaluation.schema import (
        DetectorOnLava,
        MadeBy,
        OnLava,
        OperationsFound,
        Run,
    )

STEPS = (1, 2, 4, 8, 16)
WEIGHT_BITS = (8,)
LAVA_STEPS = 4
"""Time steps of the IF network that runs on Lava."""
LAVA_IMAGES_AT_ONCE = 4


def evaluate(
    network: nn.Module | str | Path,
    data: str | TorchDataset[Any] | DataLoader[Any],
    *,
    weights: str | Path | None = None,
    input_shape: int | Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    adapters: Sequence[str | Path] = (),
    steps: Sequence[int] | None = None,
    weight_bits: Sequence[int] | None = None,
    layer_steps: int | None = None,
    lava_samples: int = 0,
    target: str = "loihi2",
    rounding: str | None = None,
    calibrate: Data | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    relu_percentile: float | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    time_limit: float = 3600.0,
    command: str = "spikeport.evaluate",
    progress: Told | None = None,
) -> Evaluation:
    """Accuracies, layer errors and spike counts of a classifier.

    CQReLU networks become CIF with and without sleep, every spike count held against the quantized
    network. Choices belong to the held-out split: run this on test data once. `notes` of the result
    say what could not be measured.

    Workers share the samples of the integer networks and of Lava, and the evaluation is the same
    for any split. The float networks and the layer errors are computed once, in this process,
    since sums of floats depend on how many samples are computed together.

    Parameters
    ----------
    network:
        A checkpoint folder of `train`; a module, "FILE.py:FACTORY", "model:NAME" or an ONNX file,
        as in `convert`; or a `.net` file.
    data:
        A data source, or a torch Dataset or DataLoader of (sample, label).
    weights, input_shape, input_range, mean, std, adapters:
        As in `convert`, of networks trained elsewhere. The shape is that of the data by default.
    steps:
        Time steps of the IF networks, by default `STEPS`; of a `.net` file those up to its own, of
        sequences (N, T, C, H, W), which a network sees one tensor in each step, up to T.
    weight_bits:
        Widths of the weights, by default 8 bits.
    layer_steps:
        Steps at which layers are compared; None for those of the training, or of sequences.
    lava_samples:
        How many samples run on Lava as well, every value compared.
    rounding, relu_percentile:
        As in `convert`; with `calibration_samples` samples of `calibrate`.
    jobs, scheduler:
        As in `run`.
    command:
        Kept in the evaluation as what made it.

    Raises
    ------
    SpikeportError
        If the checkpoint or the data cannot be read, or the network not be converted.
    """
    told = progress or (lambda _what, _done, _total: None)
    started = time.monotonic()
    samples = open_split(data) if isinstance(data, str) else labelled(data, type(data).__name__)
    run: Run | None = None
    notes: tuple[str, ...] = ()
    with open_workers(jobs, scheduler) as workers:
        said = described(input_shape, input_range, mean=mean, std=std)
        if isinstance(network, str | Path) and Path(network).suffix in NETWORK.suffixes:
            choices = (weights, calibrate, weight_bits, layer_steps, rounding, relu_percentile)
            if said != described() or adapters or any(choice is not None for choice in choices):
                raise ConversionError(
                    "a .net file is converted already: its integers are measured as they are",
                    node=str(network),
                    remedy="leave out the options of a conversion, or give the network it was made "
                    "of",
                )
            program = as_program(network)
            measured = Measurement(None, samples, _own_steps(program, steps), (), told, workers)
            measured.measure_program(program)
            origin = {"file": Path(network).name, "program_hash": program.hash}
        else:
            given = GivenNetwork(
                network,
                weights,
                said.of_data(samples),
                calibrate,
                calibration_samples,
                adapters=tuple(adapters),
            )
            opened = given.open(task=CLASSIFICATION)
            checkpoint, bits = opened.trained.checkpoint, weight_bits or WEIGHT_BITS
            subject = _subject(opened, layer_steps, samples)
            lower = _lowering(opened, target, rounding, relu_percentile)
            chosen = steps_of(samples, steps, STEPS)
            measured = Measurement(subject, samples, chosen, bits, told, workers)
            measured.measure(lower)
            run = None if checkpoint is None else _run_of(checkpoint)
            origin, notes = opened.trained.provenance, opened.notes
            if lava_samples:
                neuron, schedule = "if", Schedule(samples.steps or LAVA_STEPS)
                if measured.counts is not None:
                    neuron = "cif"
                    schedule = Schedule(subject.levels, measured.counts["settle_steps"])
                program = lower(neuron, schedule, bits[0])
        on_lava = None
        if lava_samples:
            few = samples.take(slice(0, lava_samples))
            on_lava = _on_lava(program, few, Lava(time_limit=time_limit), told, workers)
    return Evaluation(
        run=run,
        data=samples.name,
        num_samples=len(samples),
        made_by=_made_by(command, started),
        rows=tuple(measured.rows),
        gaps=measured.gaps,
        counts=measured.counts,
        lava=on_lava,
        notes=(*notes, *measured.notes),
        network=origin if run is None else None,
        sequences=tuple(one.describe(operation_costs()) for one in measured.sequences),
    )


def _subject(opened: OpenNetwork, layer_steps: int | None, samples: Samples) -> Subject:
    """What is measured of a network: a checkpoint's activation, or what the trace shows."""
    trained, checkpoint = opened.trained, opened.trained.checkpoint
    assert isinstance(trained.model, nn.Module)
    if checkpoint is not None:
        config = checkpoint.config
        return Subject(
            trained.model,
            trained.quantizer,
            config.activation,
            config.levels,
            checkpoint.class_names,
            layer_steps or samples.steps or config.calibration_steps,
            checkpoint.frames,
        )
    if layer_steps is not None:
        raise ConversionError(
            "layers are compared of networks that `train` has trained",
            node=trained.name,
            remedy="leave layer_steps= out",
        )
    kinds, levels = trained_activations(trained.model, trained.quantizer.shape)
    activation = kinds.pop() if len(kinds) == 1 and levels is not None else ""
    return Subject(trained.model, trained.quantizer, activation, levels or 0)


def _own_steps(program: IntProgram, steps: Sequence[int] | None) -> list[int]:
    """Steps at which the outputs of a program are read; it has been converted for the longest."""
    longest = program.schedule.num_steps
    if steps is None:
        return up_to(longest, STEPS)
    if is_cif(program):
        raise ConversionError(
            "a CIF network is measured over its own wake and sleep steps",
            node=program.name,
            remedy="leave steps= out",
        )
    if max(steps) > longest:
        raise ConversionError(
            "the program has fewer steps",
            node=program.name,
            found=max(steps),
            allowed=f"up to {longest}",
            remedy="convert the network for as many steps",
        )
    return sorted(steps)


def evaluate_detector(
    run: str | Path,
    data: str,
    *,
    steps: Sequence[int] = STEPS,
    weight_bits: int = 8,
    lava_samples: int = 0,
    target: str = "loihi2",
    jobs: int = 1,
    scheduler: str | None = None,
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
    steps, weight_bits, lava_samples, jobs, scheduler, command:
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
    opened = OpenNetwork(network_of(checkpoint, folder), None, ())
    on_lava = None
    with open_workers(jobs, scheduler) as workers:
        measured = DetectorMeasurement(checkpoint, images, steps, weight_bits, told, workers)
        measured.measure(_lowering(opened, target))
        if lava_samples and measured.program is not None:
            few = images.take(slice(0, lava_samples))
            on_lava = _detector_on_lava(measured.program, few, time_limit, told, workers)
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
    opened: OpenNetwork,
    target: str,
    rounding: str | None = None,
    relu_percentile: float | None = None,
) -> Lower:
    """Conversion of the network with the caller's options."""
    limits, network = load_profile(target).as_target_limits(), opened.trained

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
            calibration=opened.calibration,
        ).program

    return lower


def _compared(
    program: IntProgram,
    data: Samples,
    lava: Backend,
    record: str,
    told: Told,
    workers: Workers,
) -> tuple[Recording, Comparison]:
    """A run on Lava, compared with the reference simulator's."""
    runs = []
    for backend in (Reference(), lava):
        name = f"{backend.name}: {program.name}"
        runs.append(run_data(program, data, backend, record, partial(told, name), workers))
    return runs[1], compare(*runs)


def _on_lava(
    program: IntProgram, data: Samples, lava: Lava, told: Told, workers: Workers
) -> OnLava:
    """Every spike, membrane potential and logit of a Lava run against the reference simulator."""
    found, comparison = _compared(program, data, lava, "full", told, workers)
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
    program: IntProgram, data: Samples, time_limit: float, told: Told, workers: Workers
) -> DetectorOnLava:
    """Every step of every layer of a Lava run against the reference simulator."""
    batch = min(LAVA_IMAGES_AT_ONCE, len(data))
    lava = Lava("fast", batch=batch, time_limit=time_limit)
    _, comparison = _compared(program, data, lava, "digest", told, workers)
    return {
        "samples": len(data),
        "steps": program.schedule.num_steps,
        "weight_bits": program.weight_bits,
        "compared": comparison.compared,
        "mismatches": comparison.total,
        "program_hash": program.hash,
    }
