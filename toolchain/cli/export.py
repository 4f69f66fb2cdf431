"""`spikeport export`: a `.net` file in the format of another toolchain."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import spikeport
from toolchain.cli.options import Json, Net
from toolchain.cli.output import Output


class Target(str, Enum):
    """Format of the exported file."""

    NIR = "nir"


def command(
    net: Net,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="File to write.")],
    to: Annotated[Target, typer.Option("--to", help="Format.")] = Target.NIR,
    accept_hard_reset: Annotated[
        bool,
        typer.Option(
            "--accept-hard-reset",
            help="Write networks of several steps, which other NIR tools reset to zero.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Write a network as a NIR graph, and list what NIR lacks.

    `spikeport convert FILE.nir -o NET.net` restores the same program.
    """
    from toolchain.output_policy import NIR, check_output

    output = Output(as_json=json)
    check_output(out, NIR, [net])
    entries = spikeport.export(spikeport.load(net), out, accept_hard_reset=accept_hard_reset)
    rows = [(entry.what, entry.where, entry.fate.value, entry.consequence) for entry in entries]
    output.table(("NIR has no", "layer", "is", "which means"), rows, f"{to.value}: {out}")
    output.say(f"wrote {out}")
    output.result({"out": str(out), "ledger": [asdict(entry) for entry in entries]})
