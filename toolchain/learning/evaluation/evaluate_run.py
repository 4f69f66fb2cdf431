"""All measurements of one trained network on one data set, in the papers' protocol.

The ANN runs without noise. Float spiking networks and integer programs get the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from toolchain.accuracy import Accuracy
from toolchain.engine.settle import MAX_SLEEP_FACTOR
from toolchain.errors import DataError
from toolchain.learning.activations import IF_ACTIVATIONS, ActivationMode
from toolchain.learning.data import Dataset, input_spikes
from toolchain.learning.evaluation.float_network import layer_gaps, spiking_logits
from toolchain.learning.evaluation.int_network import compare_counts, readouts
from toolchain.learning.evaluation.results import AccuracyRow
from toolchain.learning.evaluation.schema import Counts, Gaps
from toolchain.learning.training.checkpoint import Checkpoint
from toolchain.learning.training.inference import logits, normalised
from toolchain.program.int_program import IntProgram, Schedule

Lower = Callable[[str, Schedule, int], IntProgram]
"""Converts the network for a neuron ("if", "cif"), a schedule and a number of weight bits."""
Progress = Callable[[str, int, int], None]
"""Called with what is being measured, samples done and samples in all."""
FLOAT = "float"


def integer(weight_bits: int) -> str:
    """What a row calls the arithmetic of a program."""
    return f"{weight_bits}-bit integer"


@dataclass(frozen=True)
class EvaluationPlan:
    """What to measure.

    Attributes
    ----------
    steps:
        Time steps T of the IF networks.
    weight_bits:
        Widths of the integer programs.
    gap_steps:
        Steps at which layers are compared, by default those that sigma was estimated from.
    """

    steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    weight_bits: tuple[int, ...] = (8,)
    gap_steps: int | None = None


@dataclass
class Measurements:
    """What was measured; see `document.Evaluation`."""

    rows: list[AccuracyRow] = field(default_factory=list)
    gaps: Gaps | None = None
    counts: Counts | None = None


def evaluate(
    checkpoint: Checkpoint,
    data: Dataset,
    plan: EvaluationPlan,
    lower: Lower,
    progress: Progress,
) -> Measurements:
    """Measure a network: IF networks for NQ, QCFS and ReLU, CIF and wake-sleep for CQReLU.

    Everything is converted before anything is measured.

    Raises
    ------
    DataError
        If the data are not of the kind the network was trained on.
    SpikeportError
        If it cannot be converted.
    """
    config, model = checkpoint.config, checkpoint.model
    _check_data(checkpoint, data)
    sleeping = config.activation == "cqrelu"
    programs = _convert(config.levels, plan, lower, sleeping=sleeping)
    x = normalised(data, config.mean, config.std)
    measured = Measurements()
    quantized = logits(model, x, ActivationMode.QUANTIZED).numpy()
    measured.rows.append(_row("ANN", FLOAT, "", None, quantized, data.labels))
    if config.activation in IF_ACTIVATIONS:
        _float_spiking(measured, checkpoint, data, x, plan, progress)
    if sleeping:
        _wake_sleep(measured, programs, data, integer(plan.weight_bits[0]), progress)
    else:
        _integer_spiking(measured, programs, data, plan, progress)
    return measured


def _check_data(checkpoint: Checkpoint, data: Dataset) -> None:
    for what, found, allowed in (
        ("samples of another shape", data.sample_shape, checkpoint.sample_shape),
        ("other classes", data.class_names, checkpoint.class_names),
    ):
        if found != allowed:
            raise DataError(
                f"{what} than the network was trained on",
                node=data.name,
                found=found,
                allowed=allowed,
            )


def _convert(
    wake_steps: int, plan: EvaluationPlan, lower: Lower, *, sleeping: bool
) -> dict[str, IntProgram]:
    """Programs by arithmetic; for CIF by neuron, at the first of the plan's weight bits."""
    if not sleeping:
        schedule = Schedule(max(plan.steps))
        return {integer(bits): lower("if", schedule, bits) for bits in plan.weight_bits}
    bits, longest = plan.weight_bits[0], Schedule(wake_steps, MAX_SLEEP_FACTOR * wake_steps)
    return {
        "IF": lower("if", Schedule(wake_steps), bits),
        "CIF": lower("cif", longest, bits),
    }


def _row(
    network: str,
    arithmetic: str,
    neuron: str,
    steps: int | None,
    outputs: np.ndarray,
    labels: np.ndarray,
) -> AccuracyRow:
    return AccuracyRow(network, arithmetic, neuron, steps, Accuracy.of(outputs, labels).describe())


def _float_spiking(
    measured: Measurements,
    checkpoint: Checkpoint,
    data: Dataset,
    x: torch.Tensor,
    plan: EvaluationPlan,
    progress: Progress,
) -> None:
    def report(what: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(what, done, total)

    outputs = spiking_logits(checkpoint.model, x, plan.steps, report("float spiking network"))
    for steps, out in outputs.items():
        measured.rows.append(_row("SNN", FLOAT, "IF", steps, out, data.labels))
    gap_steps = plan.gap_steps or checkpoint.config.calibration_steps
    layers = layer_gaps(checkpoint.model, x, gap_steps, report("layer errors"))
    measured.gaps = {
        "steps": gap_steps,
        "layers": {name: gap.describe() for name, gap in layers.items()},
    }


def _integer_spiking(
    measured: Measurements,
    programs: dict[str, IntProgram],
    data: Dataset,
    plan: EvaluationPlan,
    progress: Progress,
) -> None:
    for arithmetic, program in programs.items():
        inputs = input_spikes(program.input, data)
        what = f"{arithmetic} spiking network"
        outputs = readouts(
            program,
            inputs,
            plan.steps,
            lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
        )
        for steps, out in outputs.items():
            measured.rows.append(_row("SNN", arithmetic, "IF", steps, out, data.labels))


def _wake_sleep(
    measured: Measurements,
    programs: dict[str, IntProgram],
    data: Dataset,
    arithmetic: str,
    progress: Progress,
) -> None:
    """IF, CIF and CIF with sleep until settled; the latter two are one run, looked at twice."""
    rate_coded, sleeping = programs["IF"], programs["CIF"]
    wake = sleeping.schedule.wake_steps
    inputs = input_spikes(sleeping.input, data)
    plain = compare_counts(rate_coded, inputs, lambda done, of: progress("IF", done, of))
    cif = compare_counts(sleeping, inputs, lambda done, of: progress("CIF and sleep", done, of))
    variants = {
        "IF": (plain.awake, 0),
        "CIF": (cif.awake, 0),
        "CIF + sleep": (cif.settled, cif.settle_steps),
    }
    measured.rows.append(_row("ANN", arithmetic, "", None, cif.quantized_logits, data.labels))
    for name, (comparison, sleep) in variants.items():
        outputs = np.concatenate(comparison.logits)
        measured.rows.append(_row("SNN", arithmetic, name, wake + sleep, outputs, data.labels))
    measured.counts = {
        "arithmetic": arithmetic,
        "wake_steps": wake,
        "settle_steps": cif.settle_steps,
        "samples": len(data),
        "variants": {
            name: {
                "sleep_steps": sleep,
                "unequal_images": comparison.unequal_images,
                "layers": {n: e.describe() for n, e in comparison.layers.items()},
            }
            for name, (comparison, sleep) in variants.items()
        },
    }
