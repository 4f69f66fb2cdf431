"""`spikeport detector evaluate`: a trained detector and its spiking counterparts on test data."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from toolchain.cli.inputs import data_path
from toolchain.cli.options import Boxes, Json, TimeLimit
from toolchain.cli.output import Output, percent

if TYPE_CHECKING:
    from toolchain.data import BoxDataset
    from toolchain.detection.checkpoint import DetectorCheckpoint
    from toolchain.detection.document import DetectorEvaluation
    from toolchain.detection.measure import Lower
    from toolchain.evaluation.schema import DetectorOnLava, OperationsFound
    from toolchain.program.int_program import IntProgram, Schedule


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A checkpoint folder of `detector train`.")
    ],
    data: Boxes,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.json", help="Default: RUN/detection.json."),
    ] = None,
    steps: Annotated[str, typer.Option(help="Time steps of an IF network.")] = "1,2,4,8,16",
    weight_bits: Annotated[int, typer.Option(help="Width of the integer weights.")] = 8,
    lava: Annotated[
        int, typer.Option(min=0, help="Images that run on Lava as well, compared by digest.")
    ] = 0,
    target: Annotated[str, typer.Option(help="Whose registers must hold it.")] = "loihi2",
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Measure mAP of the ANN and of the SNN by steps into a file.

    CQReLU detectors become CIF with sleep until nothing fires any more; every output is then held
    against the quantized network's, integer by integer. Exit code 1 if one differs, or on Lava.
    """
    from toolchain.cli.counts import positive_numbers
    from toolchain.data import open_boxes
    from toolchain.detection.checkpoint import load_detector
    from toolchain.output_policy import DETECTION, check_output

    output = Output(as_json=json)
    path = out or run / "detection.json"
    if run.is_dir():
        check_output(path, DETECTION, [data_path(data), Path(target)])
    checkpoint = load_detector(run)
    config = checkpoint.config
    dataset = open_boxes(data, (config.input_size[0], config.input_size[1]))
    lower = _lowering(checkpoint, run, weight_bits, target)
    chosen = positive_numbers("--steps", steps)
    evaluation = _evaluation(run.name, checkpoint, dataset, chosen, lower, lava, time_limit, output)
    evaluation.write(path)
    _show(evaluation, run.name, output)
    output.say(f"wrote {path}")
    output.result({"out": str(path), "rows": [r.__dict__ for r in evaluation.rows]})
    exact, on_lava = evaluation.exactness, evaluation.lava
    if (exact and (exact.differing or exact.unequal_images)) or (on_lava and on_lava["mismatches"]):
        raise typer.Exit(1)


def _lowering(checkpoint: DetectorCheckpoint, run: Path, weight_bits: int, target: str) -> Lower:
    from hw_models.profile import load_profile
    from toolchain.cli.network import detector_of
    from toolchain.conversion.pipeline import ConversionOptions, convert

    limits = load_profile(target).as_target_limits()
    network = detector_of(checkpoint, run)

    def lower(neuron: str, schedule: Schedule) -> IntProgram:
        return convert(
            network.model,
            network.quantizer,
            ConversionOptions(neuron, schedule, weight_bits),
            limits,
            name=network.name,
            provenance=network.provenance,
        ).program

    return lower


def _evaluation(
    name: str,
    checkpoint: DetectorCheckpoint,
    data: BoxDataset,
    steps: tuple[int, ...],
    lower: Lower,
    lava: int,
    time_limit: float,
    output: Output,
) -> DetectorEvaluation:
    import numpy
    import torch

    from toolchain.cli.costs import operation_costs
    from toolchain.detection.document import DetectorEvaluation
    from toolchain.detection.measure import measure_detector
    from toolchain.evaluation.document import made_by

    started = time.monotonic()
    with output.progress(f"evaluate {name}") as task:
        measured = measure_detector(
            checkpoint, data, steps, lower, lambda what, n, of: task.update(n, of, what)
        )
    on_lava = None
    if lava and measured.program is not None:
        on_lava = _on_lava(measured.program, data.take(slice(0, lava)), output, time_limit)
    operations = measured.operations
    return DetectorEvaluation(
        run={
            "config": checkpoint.config.as_dict(),
            "epoch": checkpoint.epoch,
            "checkpoint_sha256": checkpoint.tensors_sha256,
            "history": checkpoint.history,
        },
        data=data.name,
        num_images=len(data),
        num_boxes=len(data.boxes),
        made_by=made_by(
            shlex.join(["spikeport", *sys.argv[1:]]),
            time.monotonic() - started,
            torch=torch.__version__,
            numpy=numpy.__version__,
        ),
        rows=tuple(measured.rows),
        settle=measured.settle,
        exactness=measured.exactness,
        operations=cast(
            "OperationsFound | None",
            operations.describe(operation_costs()) if operations else None,
        ),
        lava=on_lava,
    )


def _on_lava(
    program: IntProgram, data: BoxDataset, output: Output, time_limit: float
) -> DetectorOnLava:
    """Every step of every layer of a Lava run against the reference simulator."""
    from exports.lava import LavaModels
    from toolchain.cli.run import Backend, Record, execute
    from toolchain.recording.compare import compare

    record = Record.DIGEST
    reference = execute(program, data, Backend.REFERENCE, record, output, time_limit)
    models = LavaModels.fast(batch=min(4, len(data)))
    found = execute(program, data, Backend.LAVA, record, output, time_limit, models)
    comparison = compare(reference, found)
    return {
        "samples": len(data),
        "steps": program.schedule.num_steps,
        "weight_bits": program.weight_bits,
        "compared": comparison.compared,
        "mismatches": comparison.total,
        "program_hash": program.hash,
    }


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
