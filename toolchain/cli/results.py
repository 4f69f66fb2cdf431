"""`spikeport results`: the page of tables and figures from saved evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.options import Json
from toolchain.cli.output import Output
from toolchain.text import counted


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where evaluations lie, at any depth.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE.md", help="Page to write.")
    ] = Path("RESULTS.md"),
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the figures (beside the page: figures)."),
    ] = None,
    speed: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with what benchmarks of speed left."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page of tables and figures from saved evaluations.

    Every evaluation.json below the folder is taken, with the papers' figures, and detectors'
    detection.json with the pictures beside them.
    """
    from toolchain.detection.document import find_detector_evaluations
    from toolchain.detection.page import detection_lines, provenance_lines
    from toolchain.documents import as_error
    from toolchain.errors import DataError
    from toolchain.evaluation.page import Further, find_evaluations, write_page
    from toolchain.evaluation.speed import find_measurements
    from toolchain.output_policy import RESULTS, check_output

    output = Output(as_json=json)
    check_output(out, RESULTS)
    detectors = find_detector_evaluations(folder)
    evaluations = find_evaluations(folder, needed=not detectors)
    measured = find_measurements(speed) if speed else {}
    with as_error(DataError, "what was measured makes no page", str(folder)):
        further = Further(detection_lines(detectors, folder, out), provenance_lines(detectors))
        drawn = write_page(evaluations, out, figures or out.parent / "figures", measured, further)
    count = len(evaluations) + len(detectors)
    told = f"{counted(count, 'evaluation')}, and {counted(len(drawn), 'figure')}"
    output.say(f"wrote {out} from {told}")
    output.result(
        {
            "out": str(out),
            "evaluations": [*evaluations, *detectors],
            "measurements": list(measured),
            "figures": [str(path) for path in drawn],
        }
    )
