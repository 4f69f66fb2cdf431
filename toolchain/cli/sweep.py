"""`spikeport sweep`: many conversions and their Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
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
    Weights,
)
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, network_path, positive_numbers, typed
from toolchain.cli.stops import telling
from toolchain.cli.wording import as_options

if TYPE_CHECKING:
    from toolchain.sweep.grid import Point
    from toolchain.sweep.measure import Result


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILE.onnx|FILE.py:FACTORY|model:NAME...",
            help="Folders of `train`, or networks trained elsewhere.",
        ),
    ],
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="SWEEP.sqlite",
            help="File of results; a repeated command continues it.",
        ),
    ],
    weights: Weights = None,
    input_shape: InputShape = None,
    input_range: InputRange = None,
    mean: Mean = "0",
    std: Std = "1",
    adapters: Adapters = None,
    calibrate: Calibrate = None,
    calibration_samples: CalibrationSamples = 256,
    steps: Annotated[
        Any,
        typed(
            "--steps",
            positive_numbers,
            help="Time steps, or wake steps of CIF (default 1,2,4,8; of sequences to their end).",
        ),
    ] = None,
    weight_bits: Annotated[
        Any, typed("--weight-bits", positive_numbers, help="Widths of the weights.")
    ] = "4,8",
    neurons: Annotated[str, typer.Option(help="if, cif, or both.")] = "if",
    max_spikes: Annotated[
        Any, typed("--max-spike", positive_numbers, help="Largest graded spikes K (IF).")
    ] = "1",
    target: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Hardware whose cores are counted.")
    ] = "loihi2",
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the Pareto front.")
    ] = None,
    json: Json = False,
) -> None:
    """Convert and run every combination of settings.

    Settings are networks, neurons, steps, weight bits and largest spikes. A repeated command
    continues a sweep that was stopped or killed. The table marks the Pareto front: no other result
    is better in accuracy, synops, latency or cores and as good in the rest. Exit code 1 if every
    point failed.
    """
    from toolchain.output_policy import PLOT, STORE, check_output

    output = Output(as_json=json)
    read = [data_path(data), data_path(calibrate), Path(target), weights, *(adapters or [])]
    read += [network_path(run) for run in runs]
    check_output(out, STORE, read)
    if plot is not None:
        check_output(plot, PLOT, [*read, out])
    going_on = f"finished points are kept in {out}; repeat the command to go on behind them"
    with output.progress("sweep") as task, telling(lambda: going_on):
        swept = spikeport.sweep(
            runs,
            data,
            out,
            weights=weights,
            input_shape=input_shape,
            input_range=input_range,
            mean=mean,
            std=std,
            adapters=adapters or (),
            calibrate=calibrate,
            calibration_samples=calibration_samples,
            steps=steps,
            weight_bits=weight_bits,
            neurons=neurons.split(","),
            max_spikes=max_spikes,
            target=target,
            jobs=jobs,
            scheduler=scheduler,
            progress=task.update,
        )
    results, best = swept.results, {r.key for r in swept.front}
    _show(results, best, output)
    for note in swept.notes:
        output.say(f"note: {as_options(note)}")
    if plot is not None:
        swept.plot(plot)
        output.say(f"wrote {plot}")
    output.say(f"wrote {out}")
    if swept.failed:
        output.say(f"{len(swept.failed)} of {len(results)} points failed", "yellow")
    output.result({"out": str(out), "results": [_described(r, r.key in best) for r in results]})
    if len(swept.failed) == len(results):
        raise typer.Exit(1)


def _described(result: Result, best: bool) -> dict[str, Any]:
    point: Point = result.point
    return {
        "run": point.run,
        "levels": point.levels or None,
        "neuron": point.neuron,
        "steps": point.steps,
        "weight_bits": point.weight_bits,
        "max_spike": point.max_spike,
        "accuracy": result.accuracy,
        "correct": result.correct,
        "total": result.total,
        "synops": result.synops,
        "latency": result.latency,
        "cores": result.cores,
        "program_hash": result.program_hash,
        "error": as_options(result.error),
        "pareto": best,
    }


def _show(results: tuple[Result, ...], best: set[str], output: Output) -> None:
    rows = [
        (
            Path(r.point.run).name,
            r.point.neuron,
            r.point.steps,
            r.point.weight_bits,
            r.point.max_spike,
            "-" if r.error else percent(r.accuracy),
            "-" if r.error else f"{r.synops:,.0f}",
            "-" if r.error else r.latency,
            "-" if r.error else r.cores,
            "*" if r.key in best else "",
        )
        for r in results
    ]
    columns = (
        "run",
        "neuron",
        "steps",
        "bits",
        "K",
        "accuracy",
        "synops",
        "latency",
        "cores",
        "front",
    )
    output.table(columns, rows, "sweep")
    for r in results:
        if r.error:
            where = f"{Path(r.point.run).name}, {r.point.steps} steps, {r.point.weight_bits} bits"
            if r.point.max_spike > 1:
                where += f", spikes to {r.point.max_spike}"
            output.say(f"{where}: {as_options(r.error)}", "yellow")
