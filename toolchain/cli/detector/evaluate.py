"""`spikeport detector evaluate`: a trained detector and its spiking counterparts on test data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from toolchain.cli.options import Boxes, Jobs, Json, Scheduler, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, positive_numbers, typed

if TYPE_CHECKING:
    from toolchain.learning.detection.document import DetectorEvaluation


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A checkpoint folder of `detector train`.")
    ],
    data: Boxes,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.json", help="Default: RUN/detection.json."),
    ] = None,
    steps: Annotated[
        Any, typed("--steps", positive_numbers, help="Time steps of an IF network.")
    ] = "1,2,4,8,16",
    weight_bits: Annotated[int, typer.Option(help="Width of the integer weights.")] = 8,
    lava_samples: Annotated[
        int,
        typer.Option("--lava", min=0, help="Images that run on Lava as well, compared by digest."),
    ] = 0,
    target: Annotated[str, typer.Option(help="Whose registers must hold it.")] = "loihi2",
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Measure mAP of the ANN and of the SNN by steps into a file.

    CQReLU detectors become CIF with sleep until nothing fires any more; every output is then held
    against the quantized network's, integer by integer. Exit code 1 if one differs, or on Lava.
    """
    from toolchain.output_policy import DETECTION, check_output

    output = Output(as_json=json)
    path = out or run / "detection.json"
    if run.is_dir():
        check_output(path, DETECTION, [data_path(data), Path(target)])
    with output.progress(f"evaluate {run.name}") as task:
        evaluation = spikeport.evaluate_detector(
            run,
            data,
            steps=steps,
            weight_bits=weight_bits,
            lava_samples=lava_samples,
            target=target,
            jobs=jobs,
            scheduler=scheduler,
            time_limit=time_limit,
            command=shlex.join(["spikeport", *sys.argv[1:]]),
            progress=lambda what, done, total: task.update(done, total, what),
        )
    evaluation.write(path)
    _show(evaluation, run.name, output)
    output.say(f"wrote {path}")
    output.result({"out": str(path), "rows": [r.__dict__ for r in evaluation.rows]})
    exact, on_lava = evaluation.exactness, evaluation.lava
    if (exact and (exact.differing or exact.unequal_images)) or (on_lava and on_lava["mismatches"]):
        raise typer.Exit(1)


def _show(evaluation: DetectorEvaluation, name: str, output: Output) -> None:
    rows = [
        (
            f"{row.network} {row.neuron}".strip(),
            row.arithmetic,
            row.steps or "-",
            percent(row.at_half),
            percent(row.mean),
        )
        for row in evaluation.rows
    ]
    title = f"{name} on {evaluation.data}, {evaluation.num_images} images"
    output.table(("network", "arithmetic", "steps", "mAP@0.5", "mAP@[.5:.95]"), rows, title)
    exact = evaluation.exactness
    if exact:
        settled = max(evaluation.settle.values(), default=0)
        output.say(
            f"settled after {settled} sleep steps: {exact.differing} of {exact.outputs:,} outputs "
            f"differ from the quantized network's, {exact.unequal_images} of {exact.images} images "
            "have other boxes"
        )
    if evaluation.operations:
        output.say(f"synops per image: {evaluation.operations['synops']:,.0f}")
    if evaluation.lava:
        output.say(
            f"Lava: {evaluation.lava['samples']} images, {evaluation.lava['compared']:,} digests "
            f"compared, {evaluation.lava['mismatches']} mismatches"
        )
