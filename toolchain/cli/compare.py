"""`spikeport compare`: two recordings bit by bit; exit 1 on any difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolchain.cli.options import Json
from toolchain.cli.output import Output


def command(
    expected: Annotated[Path, typer.Argument(metavar="A.npz", help="What is expected.")],
    found: Annotated[Path, typer.Argument(metavar="B.npz", help="What was found.")],
    json: Json = False,
) -> None:
    """Compare two recordings and name the first divergent layer, step and neuron."""
    from toolchain.recording import Recording, compare

    output = Output(as_json=json)
    first, second = Recording.load(expected), Recording.load(found)
    comparison = compare(first, second)
    output.say(
        f"{first.meta['backend']} against {second.meta['backend']}: "
        f"{comparison.compared:,} compared ({comparison.granularity}), "
        f"{comparison.total:,} mismatches",
        "green" if comparison.equal else "red",
    )
    if not comparison.same_program:
        output.say("the recordings come from different programs", "red")
    if comparison.mismatches:
        rows = list(comparison.mismatches.items())
        output.table(("layer", "mismatches"), rows, "mismatches by layer")
        output.say(f"first divergence: {comparison.first}")
    output.result(comparison.as_dict())
    if not comparison.equal:
        raise typer.Exit(1)
