"""`spikeport evaluate`: a trained network and its spiking counterparts on test data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from toolchain.cli.convert import Rounding
from toolchain.cli.options import Data, Json, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, positive_numbers, typed

if TYPE_CHECKING:
    from toolchain.learning.evaluation.results import Evaluation


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A checkpoint folder of `train`.")],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.json", help="Default: RUN/evaluation.json."),
    ] = None,
    steps: Annotated[
        Any, typed("--steps", positive_numbers, help="Time steps of the IF networks.")
    ] = "1,2,4,8,16",
    weight_bits: Annotated[
        Any, typed("--weight-bits", positive_numbers, help="Widths of the integer weights.")
    ] = "8",
    layer_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps at which layers are compared (as in training)."),
    ] = None,
    lava_samples: Annotated[
        int,
        typer.Option("--lava", min=0, help="Images that also run on Lava, compared bit by bit."),
    ] = 0,
    rounding: Annotated[Rounding, typer.Option(help="gptq needs --calibrate.")] = Rounding.NEAREST,
    calibrate: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Data to calibrate on; never test data.")
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="Number of calibration samples, chosen by the seed.")
    ] = 256,
    relu_percentile: Annotated[
        float | None, typer.Option(help="Threshold of plain ReLUs, with --calibrate.")
    ] = None,
    target: Annotated[str, typer.Option(help="Hardware whose registers it must fit.")] = "loihi2",
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Measure accuracies and layer errors into one JSON file.

    NQ, QCFS and ReLU networks become IF networks at several steps, in float and in integers;
    CQReLU networks become CIF with and without sleep, and every spike count is compared with the
    quantized network. Choose settings on the held-out split; run this on test data once.
    """
    from toolchain.output_policy import EVALUATION, check_output

    output = Output(as_json=json)
    path = out or run / "evaluation.json"
    if run.is_dir():
        check_output(path, EVALUATION, [data_path(data), data_path(calibrate), Path(target)])
    with output.progress(f"evaluate {run.name}") as task:
        evaluation = spikeport.evaluate(
            run,
            data,
            steps=steps,
            weight_bits=weight_bits,
            layer_steps=layer_steps and positive_numbers("--layer-steps", str(layer_steps))[0],
            lava_samples=lava_samples,
            target=target,
            rounding=rounding.value,
            calibrate=calibrate,
            calibration_samples=calibration_samples,
            relu_percentile=relu_percentile,
            time_limit=time_limit,
            command=shlex.join(["spikeport", *sys.argv[1:]]),
            progress=lambda what, done, total: task.update(done, total, what),
        )
    evaluation.write(path)
    _show(evaluation, run.name, output)
    output.say(f"wrote {path}")
    output.result({"out": str(path), "rows": [r.__dict__ for r in evaluation.rows]})
    if evaluation.lava and evaluation.lava["mismatches"]:
        raise typer.Exit(1)


def _show(evaluation: Evaluation, name: str, output: Output) -> None:
    from toolchain.accuracy import interval_of

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
