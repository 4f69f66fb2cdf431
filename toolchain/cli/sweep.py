"""`spikeport sweep`: many conversions, and which of them are worth having."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.cli.audit import chip_of
from toolchain.cli.counts import positive_numbers
from toolchain.cli.inputs import data_path
from toolchain.cli.options import Data, Json
from toolchain.cli.output import Output, percent
from toolchain.cli.stops import telling
from toolchain.errors import ConversionError

if TYPE_CHECKING:
    from toolchain.sweep.grid import Point
    from toolchain.sweep.measure import Result

NEURONS = ("if", "cif")


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Checkpoint folders of `train`.")
    ],
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="SWEEP.sqlite", help="Results; goes on there.")
    ],
    steps: Annotated[str, typer.Option(help="Time steps, or wake steps of CIF.")] = "1,2,4,8",
    weight_bits: Annotated[str, typer.Option(help="Widths of the weights.")] = "4,8",
    neurons: Annotated[str, typer.Option(help="if, cif, or both.")] = "if",
    target: Annotated[
        str, typer.Option(metavar="NAME|FILE.toml", help="Whose cores are counted.")
    ] = "loihi2",
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler; by default all runs here."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Points at a time, if all runs here; each uses all cores.")
    ] = 1,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the Pareto front.")
    ] = None,
    json: Json = False,
) -> None:
    """Convert and run every combination of settings.

    These are networks, neurons, steps and weight bits.
    A sweep that was stopped, or killed, goes on where it was when the command is repeated. The
    table marks the Pareto front: no other result is better in accuracy, synops, latency or cores
    and as good in the rest. Ends with 1 if every point failed.
    """
    from hw_models.profile import load_profile
    from toolchain.data import open_split
    from toolchain.output_policy import PLOT, STORE, check_output
    from toolchain.sweep.grid import make_grid
    from toolchain.sweep.pareto import front
    from toolchain.sweep.plot import draw, save_plot
    from toolchain.sweep.schedule import run_points
    from toolchain.sweep.store import Store
    from toolchain.training.checkpoint import load_checkpoint

    output = Output(as_json=json)
    read = [data_path(data), Path(target)]
    check_output(out, STORE, read)
    if plot is not None:
        check_output(plot, PLOT, [*read, out])
    limits, chip = load_profile(target).as_target_limits(), chip_of(target)
    chosen = _neurons(neurons)
    checkpoints = {run: load_checkpoint(run) for run in runs}
    grid = make_grid(
        [(run, checkpoint.config.levels) for run, checkpoint in checkpoints.items()],
        chosen,
        sorted(positive_numbers("--steps", steps)),
        sorted(positive_numbers("--weight-bits", weight_bits)),
    )
    hashes = {str(run.resolve()): c.tensors_sha256 for run, c in checkpoints.items()}
    data_sha256 = open_split(data).sha256
    points = {p.key(hashes[p.run], data_sha256, target): p for p in grid}
    store = Store(out)
    going_on = f"finished points are kept in {out}; repeat the command to go on behind them"
    with output.progress(f"sweep: {len(points)} points") as task, telling(lambda: going_on):
        run_points(
            points,
            store,
            _from_anywhere(data),
            limits,
            chip,
            scheduler=scheduler,
            workers=workers,
            progress=task.update,
        )
    results = store.results(points)
    best = {r.key for r in front(results)}
    _show(results, best, output)
    if plot is not None:
        save_plot(draw(results), plot)
        output.say(f"wrote {plot}")
    output.say(f"wrote {out}")
    failed = sum(bool(r.error) for r in results)
    if failed:
        output.say(f"{failed} of {len(results)} points failed", "yellow")
    output.result({"out": str(out), "results": [_described(r, r.key in best) for r in results]})
    if failed == len(results):
        raise typer.Exit(1)


def _neurons(text: str) -> list[str]:
    chosen = text.split(",")
    for neuron in chosen:
        if neuron not in NEURONS:
            raise ConversionError("no such neuron", node="--neurons", found=neuron, allowed=NEURONS)
    return chosen


def _from_anywhere(data: str) -> str:
    """The source with its path made absolute: workers may stand in other folders."""
    name, separator, rest = data.partition(":")
    if not separator or "@" in name:
        return data
    path, at, split = rest.partition("@")
    return f"{name}:{Path(path).resolve()}{at}{split}" if Path(path).exists() else data


def _described(result: Result, best: bool) -> dict[str, Any]:
    point: Point = result.point
    return {
        "run": point.run,
        "levels": point.levels,
        "neuron": point.neuron,
        "steps": point.steps,
        "weight_bits": point.weight_bits,
        "accuracy": result.accuracy,
        "correct": result.correct,
        "total": result.total,
        "synops": result.synops,
        "latency": result.latency,
        "cores": result.cores,
        "program_hash": result.program_hash,
        "error": result.error,
        "pareto": best,
    }


def _show(results: list[Result], best: set[str], output: Output) -> None:
    rows = [
        (
            Path(r.point.run).name,
            r.point.neuron,
            r.point.steps,
            r.point.weight_bits,
            "-" if r.error else percent(r.accuracy),
            "-" if r.error else f"{r.synops:,.0f}",
            "-" if r.error else r.latency,
            "-" if r.error else r.cores,
            "*" if r.key in best else "",
        )
        for r in results
    ]
    columns = ("run", "neuron", "steps", "bits", "accuracy", "synops", "latency", "cores", "front")
    output.table(columns, rows, "sweep")
    for r in results:
        if r.error:
            where = f"{Path(r.point.run).name}, {r.point.steps} steps, {r.point.weight_bits} bits"
            output.say(f"{where}: {r.error}", "yellow")
