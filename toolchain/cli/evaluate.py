"""`spikeport evaluate`: a trained network and its spiking counterparts on test data."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.inputs import data_path
from toolchain.cli.options import Data, Json, TimeLimit
from toolchain.cli.output import Output, percent

if TYPE_CHECKING:
    from toolchain.data import Dataset
    from toolchain.evaluation.document import Evaluation
    from toolchain.evaluation.evaluate_run import EvaluationPlan, Lower
    from toolchain.evaluation.schema import OnLava
    from toolchain.int_range import TargetLimits
    from toolchain.program.int_program import IntProgram, Schedule
    from toolchain.training.checkpoint import Checkpoint

LAVA_STEPS = 4


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A checkpoint folder of `train`.")],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.json", help="Default: RUN/evaluation.json."),
    ] = None,
    steps: Annotated[str, typer.Option(help="Time steps of the IF networks.")] = "1,2,4,8,16",
    weight_bits: Annotated[str, typer.Option(help="Widths of the integer weights.")] = "8",
    layer_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps at which layers are compared (as in training)."),
    ] = None,
    lava: Annotated[
        int, typer.Option(min=0, help="Images that run on Lava as well, compared bit by bit.")
    ] = 0,
    rounding: Annotated[str, typer.Option(help="nearest, or gptq with --calibrate.")] = "nearest",
    calibrate: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Data to calibrate on; never test data.")
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="How many samples of it, drawn by the seed.")
    ] = 256,
    relu_percentile: Annotated[
        float | None, typer.Option(help="Threshold of plain ReLUs, with --calibrate.")
    ] = None,
    target: Annotated[str, typer.Option(help="Whose registers must hold it.")] = "loihi2",
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Measure accuracies and layer errors into one JSON file.

    NQ, QCFS and ReLU networks become IF networks at several steps, in float and in integers;
    CQReLU networks become CIF with and without sleep, every spike count held against the quantized
    network. Choices belong to the held-out split: run this on test data once.
    """
    from toolchain.cli.counts import positive_numbers
    from toolchain.evaluation.evaluate_run import EvaluationPlan
    from toolchain.output_policy import EVALUATION, check_output

    output = Output(as_json=json)
    path = out or run / "evaluation.json"
    if run.is_dir():
        check_output(path, EVALUATION, [data_path(data), data_path(calibrate), Path(target)])
    plan = EvaluationPlan(
        tuple(sorted(positive_numbers("--steps", steps))),
        positive_numbers("--weight-bits", weight_bits),
        layer_steps and positive_numbers("--layer-steps", str(layer_steps))[0],
    )
    checkpoint, dataset, limits = _open(run, data, target)
    lower = _lowering(
        checkpoint, run, limits, rounding, calibrate, calibration_samples, relu_percentile
    )
    evaluation = _evaluation(run.name, checkpoint, dataset, plan, lower, lava, time_limit, output)
    evaluation.write(path)
    _show(evaluation, run.name, output)
    output.say(f"wrote {path}")
    output.result({"out": str(path), "rows": [r.__dict__ for r in evaluation.rows]})
    if evaluation.lava and evaluation.lava["mismatches"]:
        raise typer.Exit(1)


def _lowering(
    checkpoint: Checkpoint,
    run: Path,
    limits: TargetLimits,
    rounding: str,
    calibrate: str | None,
    calibration_samples: int,
    relu_percentile: float | None,
) -> Lower:
    """Conversion of the checkpoint with the user's options."""
    from toolchain.cli.calibration import open_calibration
    from toolchain.cli.network import network_of
    from toolchain.conversion.pipeline import ConversionOptions, convert

    network = network_of(checkpoint, run)
    calibration = None
    if calibrate is not None:
        seed = checkpoint.config.seed
        calibration = open_calibration(calibrate, network.quantizer, calibration_samples, seed)

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


def _evaluation(
    name: str,
    checkpoint: Checkpoint,
    dataset: Dataset,
    plan: EvaluationPlan,
    lower: Lower,
    lava: int,
    time_limit: float,
    output: Output,
) -> Evaluation:
    import numpy
    import torch

    from toolchain.evaluation.document import Evaluation, made_by
    from toolchain.evaluation.evaluate_run import evaluate
    from toolchain.program.int_program import Schedule

    started, config = time.monotonic(), checkpoint.config
    with output.progress(f"evaluate {name}") as task:
        measured = evaluate(
            checkpoint, dataset, plan, lower, lambda what, n, of: task.update(n, of, what)
        )
    on_lava = None
    if lava:
        if measured.counts is None:
            program = lower("if", Schedule(LAVA_STEPS), plan.weight_bits[0])
        else:
            schedule = Schedule(config.levels, measured.counts["settle_steps"])
            program = lower("cif", schedule, plan.weight_bits[0])
        on_lava = _on_lava(program, dataset.take(slice(0, lava)), output, time_limit)
    return Evaluation(
        run={
            "config": config.as_dict(),
            "epoch": checkpoint.epoch,
            "checkpoint_sha256": checkpoint.tensors_sha256,
            "history": checkpoint.history,
        },
        data=dataset.name,
        num_samples=len(dataset),
        made_by=made_by(
            shlex.join(["spikeport", *sys.argv[1:]]),
            time.monotonic() - started,
            torch=torch.__version__,
            numpy=numpy.__version__,
        ),
        rows=tuple(measured.rows),
        gaps=measured.gaps,
        counts=measured.counts,
        lava=on_lava,
    )


def _open(run: Path, data: str, target: str) -> tuple[Checkpoint, Dataset, TargetLimits]:
    from hw_models.profile import load_profile
    from toolchain.data import open_split
    from toolchain.training.checkpoint import load_checkpoint

    return load_checkpoint(run), open_split(data), load_profile(target).as_target_limits()


def _on_lava(program: IntProgram, data: Dataset, output: Output, time_limit: float) -> OnLava:
    """Every spike, membrane potential and logit of a Lava run against the reference simulator."""
    from toolchain.cli.run import Backend, Record, execute
    from toolchain.recording.compare import compare

    reference = execute(program, data, Backend.REFERENCE, Record.FULL, output, time_limit)
    found = execute(program, data, Backend.LAVA, Record.FULL, output, time_limit)
    comparison = compare(reference, found)
    return {
        "samples": len(data),
        "steps": program.schedule.num_steps,
        "weight_bits": program.weight_bits,
        "values": comparison.compared,
        "mismatches": sum(comparison.mismatches.values()),
        "accuracy": found.accuracy(),
        "program_hash": program.hash,
    }


def _show(evaluation: Evaluation, name: str, output: Output) -> None:
    from toolchain.evaluation.accuracy import interval_of

    rows = [
        (
            f"{row.network} {row.neuron}".strip(),
            row.arithmetic,
            row.steps or "-",
            percent(row.accuracy["accuracy"]),
            interval_of(row.accuracy),
        )
        for row in evaluation.rows
    ]
    title = f"{name} on {evaluation.data}, {evaluation.num_samples} samples"
    output.table(("network", "arithmetic", "steps", "accuracy", "95 % interval"), rows, title)
    if evaluation.lava:
        output.say(
            f"Lava: {evaluation.lava['samples']} samples, {evaluation.lava['values']:,} values "
            f"compared, {evaluation.lava['mismatches']} mismatches"
        )
