"""`spikeport evaluate`: a trained network and its spiking counterparts on test data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from toolchain.cli.convert import Rounding
from toolchain.cli.options import (
    Adapters,
    Calibrate,
    CalibrationSamples,
    Data,
    InputRange,
    InputShape,
    Jobs,
    Json,
    Mean,
    Scheduler,
    Std,
    TimeLimit,
    Weights,
)
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, network_path, positive_numbers, typed
from toolchain.cli.wording import as_options

if TYPE_CHECKING:
    from toolchain.learning.evaluation.results import Evaluation
    from toolchain.learning.evaluation.schema import OverTime


def command(
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE.onnx|FILE.py:FACTORY|model:NAME|NET.net",
            help="A folder of `train`, a network trained elsewhere, or a converted one.",
        ),
    ],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.json",
            help="Default: RUN/evaluation.json; of others, none.",
        ),
    ] = None,
    steps: Annotated[
        Any,
        typed(
            "--steps",
            positive_numbers,
            help="Time steps of the IF networks (default 1,2,4,8,16; of NET.net and of sequences "
            "up to their own).",
        ),
    ] = None,
    weight_bits: Annotated[
        Any,
        typed("--weight-bits", positive_numbers, help="Widths of the integer weights (default 8)."),
    ] = None,
    layer_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps at which layers are compared (as in training)."),
    ] = None,
    lava_samples: Annotated[
        int,
        typer.Option("--lava", min=0, help="Images that also run on Lava, compared bit by bit."),
    ] = 0,
    weights: Weights = None,
    input_shape: InputShape = None,
    input_range: InputRange = None,
    mean: Mean = "0",
    std: Std = "1",
    adapters: Adapters = None,
    calibrate: Calibrate = None,
    calibration_samples: CalibrationSamples = 256,
    rounding: Annotated[
        Rounding | None,
        typer.Option(help="gptq needs --calibrate (default where plain ReLUs are fitted)."),
    ] = None,
    relu_percentile: Annotated[
        float | None, typer.Option(help="Threshold of plain ReLUs, with --calibrate.")
    ] = None,
    target: Annotated[str, typer.Option(help="Hardware whose registers it must fit.")] = "loihi2",
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Measure accuracies and layer errors into one JSON file.

    NQ, QCFS and ReLU networks become IF networks at several steps, in float and in integers;
    CQReLU networks become CIF with and without sleep, and every spike count is compared with the
    quantized network. Notes say what cannot be measured of a network that `train` did not train.
    Choose settings on the held-out split; run this on test data once. With --jobs or --scheduler
    the numbers are the same; what the float networks compute stays in this process.
    """
    from toolchain.output_policy import EVALUATION, check_output

    output = Output(as_json=json)
    name, folder = Path(network).name, Path(network)
    path = folder / "evaluation.json" if out is None and folder.is_dir() else out
    if path is not None:
        read = [network_path(network), weights, data_path(data), data_path(calibrate)]
        check_output(path, EVALUATION, [*read, Path(target), *(adapters or [])])
    with output.progress(f"evaluate {name}") as task:
        evaluation = spikeport.evaluate(
            network,
            data,
            weights=weights,
            input_shape=input_shape,
            input_range=input_range,
            mean=mean,
            std=std,
            adapters=adapters or (),
            steps=steps,
            weight_bits=weight_bits,
            layer_steps=layer_steps and positive_numbers("--layer-steps", str(layer_steps))[0],
            lava_samples=lava_samples,
            target=target,
            rounding=None if rounding is None else rounding.value,
            calibrate=calibrate,
            calibration_samples=calibration_samples,
            relu_percentile=relu_percentile,
            jobs=jobs,
            scheduler=scheduler,
            time_limit=time_limit,
            command=shlex.join(["spikeport", *sys.argv[1:]]),
            progress=lambda what, done, total: task.update(done, total, what),
        )
    _show(evaluation, name, output)
    if path is not None:
        evaluation.write(path)
        output.say(f"wrote {path}")
    output.result(
        {
            "out": None if path is None else str(path),
            "rows": [r.__dict__ for r in evaluation.rows],
            "notes": as_options(list(evaluation.notes)),
        }
    )
    if evaluation.lava and evaluation.lava["mismatches"]:
        raise typer.Exit(1)


def _show(evaluation: Evaluation, name: str, output: Output) -> None:
    from toolchain.accuracy import interval_of

    rows = []
    for row in evaluation.rows:
        in_float = evaluation.in_float(row)
        flips = in_float and row.flips(in_float)
        rows.append(
            (
                f"{row.network} {row.neuron}".strip(),
                row.arithmetic,
                row.steps or "-",
                percent(row.accuracy["accuracy"]),
                interval_of(row.accuracy),
                str(flips or "-"),
            )
        )
    title = f"{name} on {evaluation.data}, {evaluation.num_samples} samples"
    head = ("network", "arithmetic", "steps", "accuracy", "95 % interval", "points to float")
    output.table(head, rows, title)
    for over_time in evaluation.sequences:
        output.say(_told(over_time))
    for note in evaluation.notes:
        output.say(f"note: {as_options(note)}")
    if evaluation.lava:
        output.say(
            f"Lava: {evaluation.lava['samples']} samples, {evaluation.lava['values']:,} values "
            f"compared, {evaluation.lava['mismatches']} mismatches"
        )


def _told(found: OverTime) -> str:
    """When a spiking network answers on sequences, and what it does for that."""
    from toolchain.learning.evaluation.over_time import median_step

    samples, operations = found["samples"], found["operations"]
    first, good = (median_step(found[key], samples) for key in ("first_right", "right_for_good"))
    never = samples - sum(found["first_right"])
    events = found["camera_events"]
    sent = "" if events is None else f"{events:,.0f} events of the camera, "
    spikes = sum(layer["events"] for layer in operations["layers"][1:])
    return (
        f"SNN {found['neuron']}, {found['arithmetic']}: right for the first time after "
        f"{first or '-'} steps, for good after {good or '-'} (medians), never {never} of "
        f"{samples}; {sent}{spikes:,.0f} spikes, {operations['synops']:,.0f} synops per sample"
    )
