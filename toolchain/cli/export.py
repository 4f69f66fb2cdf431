"""`spikeport export`: a `.net` file for another tool or target."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

import spikeport
from spikeport.exporting import TARGETS, check_target
from toolchain.cli.options import Json, Net
from toolchain.cli.output import Output


class Target(str, Enum):
    """What the network is written for: the names in the registry."""

    _ignore_ = "_name"
    for _name in TARGETS:
        vars()[_name.upper()] = _name


NIR = Target("nir")


def command(
    net: Net,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="Folder of c, sanafe and simulators, else a file.",
        ),
    ],
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="A NIR, ONNX or QONNX graph, C99 source, a module of a simulator, the "
            "partition onto a chip's cores, or SANA-FE's networks.",
        ),
    ] = NIR,
    accept_hard_reset: Annotated[
        bool,
        typer.Option(
            "--accept-hard-reset",
            help="nir: write networks of several steps, which other NIR tools reset to zero.",
        ),
    ] = False,
    samples: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="c, sanafe: samples to run, such as digits@test[:4] (default: seeded noise).",
        ),
    ] = None,
    settled: Annotated[
        bool,
        typer.Option("--settled", help="onnx: the network that CIF settles to, without time."),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="NAME|FILE.toml",
            help="partition, sanafe: the chip.  [default: loihi2; sanafe: loihi1]",
        ),
    ] = None,
    whole_layers: Annotated[
        bool,
        typer.Option(
            "--whole-layers",
            help="partition: chips begin where the spikes of one layer pass, as blocks must.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Write a network for another tool: a graph, source, or a module.

    What the target lacks is listed.
    `spikeport convert FILE.nir -o NET.net` restores the same program. In the folder of C source,
    `make test` compares every spike and potential with the reference simulator.
    """
    output = Output(as_json=json)
    check_target(out, to.value, [net])
    entries = spikeport.export(
        spikeport.load(net),
        out,
        to.value,
        accept_hard_reset=accept_hard_reset,
        samples=samples,
        settled=settled,
        target=target,
        whole_layers=whole_layers,
    )
    if entries:
        rows = [(entry.what, entry.where, entry.fate.value, entry.consequence) for entry in entries]
        title = f"{to.value}: {out}"
        output.table((f"{to.name} has no", "layer", "is", "which means"), rows, title)
    output.say(f"wrote {out}")
    output.result({"out": str(out), "ledger": [asdict(entry) for entry in entries]})
