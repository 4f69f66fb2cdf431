"""`spikeport show`: one sample of a recording as a page, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import spikeport
from toolchain.cli.options import Json
from toolchain.cli.output import Output


def command(
    recording: Annotated[
        Path, typer.Argument(metavar="REC.npz", help="A recording with `--record full` or events.")
    ],
    net: Annotated[Path, typer.Option(metavar="NET.net", help="Network of the recording.")],
    sample: Annotated[int, typer.Option(help="Index of the sample, from 0.")] = 0,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Data of the recording, if it does not name it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="PAGE.html", help="By default beside the recording."),
    ] = None,
    json: Json = False,
) -> None:
    """Show one sample of a recording as a page, step by step.

    The page has the input, every spike of every layer and the outputs; it works offline.
    """
    output = Output(as_json=json)
    page = out or recording.with_suffix(".html")
    missing = spikeport.show(recording, net, page, sample=sample, data=data)
    if missing:
        output.say(f"the input is {missing}", "yellow")
    output.say(f"wrote {page}")
    output.result({"page": str(page), "sample": sample, "without_input": missing})
