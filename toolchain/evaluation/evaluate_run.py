"""All measurements of one trained network on one data set, in the papers' protocol.

The ANN runs without noise. Float spiking networks and integer programs get the same samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from toolchain.activations import IF_ACTIVATIONS, Mode
from toolchain.data import Dataset
from toolchain.evaluation.accuracy import Accuracy
from toolchain.evaluation.document import Row
from toolchain.evaluation.float_network import layer_gaps, spiking_logits
from toolchain.evaluation.int_network import compare_counts, readouts
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.simulator.settle import MAX_SLEEP_FACTOR
from toolchain.training.checkpoint import Checkpoint
from toolchain.training.evaluate import logits, normalised

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

    rows: list[Row] = field(default_factory=list)
    gaps: dict[str, Any] | None = None
    counts: dict[str, Any] | None = None


def evaluate(
    checkpoint: Checkpoint,
    data: Dataset,
    plan: EvaluationPlan,
    lower: Lower,
    progress: Progress,
) -> Measurements:
    """Measure a network: IF networks for NQ and QCFS, CIF and wake-sleep for CQReLU."""
    config, model = checkpoint.config, checkpoint.model
    x = normalised(data, config.mean, config.std)
    measured = Measurements()
    quantized = logits(model, x, Mode.QUANTIZED).numpy()
    measured.rows.append(_row("ANN", FLOAT, "", None, quantized, data.labels))
    if config.activation in IF_ACTIVATIONS:
        _float_spiking(measured, checkpoint, data, x, plan, progress)
    if config.activation == "cqrelu":
        _wake_sleep(measured, checkpoint, data, plan, lower, progress)
    else:
        _integer_spiking(measured, data, plan, lower, progress)
    return measured


def _row(
    network: str,
    arithmetic: str,
    neuron: str,
    steps: int | None,
    outputs: np.ndarray,
    labels: np.ndarray,
) -> Row:
    return Row(network, arithmetic, neuron, steps, Accuracy.of(outputs, labels).describe())


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
    data: Dataset,
    plan: EvaluationPlan,
    lower: Lower,
    progress: Progress,
) -> None:
    for bits in plan.weight_bits:
        program = lower("if", Schedule(max(plan.steps)), bits)
        inputs = program.input.quantize(data.real())
        what = f"{bits}-bit spiking network"
        outputs = readouts(
            program,
            inputs,
            plan.steps,
            lambda done, total, what=what: progress(what, done, total),  # type: ignore[misc]
        )
        for steps, out in outputs.items():
            measured.rows.append(_row("SNN", integer(bits), "IF", steps, out, data.labels))


def _wake_sleep(
    measured: Measurements,
    checkpoint: Checkpoint,
    data: Dataset,
    plan: EvaluationPlan,
    lower: Lower,
    progress: Progress,
) -> None:
    """IF, CIF and CIF with sleep until settled, at the first of the plan's weight bits.

    CIF with and without sleep are one run, looked at twice.
    """
    wake, bits = checkpoint.config.levels, plan.weight_bits[0]
    arithmetic = integer(bits)
    rate_coded = lower("if", Schedule(wake), bits)
    sleeping = lower("cif", Schedule(wake, MAX_SLEEP_FACTOR * wake), bits)
    inputs = sleeping.input.quantize(data.real())
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
