"""`spikeport verify`: whether a file is intact, and its program still computes what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from toolchain.cli.options import Json, Net, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.run import REFERENCE, BackendName

if TYPE_CHECKING:
    from spikeport import Verification

FAILED = 1


def command(
    net: Net,
    samples: Annotated[
        str | None, typer.Option("--data", metavar="SOURCE", help="Data to replay.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Store this run in the file, to verify it later.")
    ] = False,
    backend: Annotated[BackendName, typer.Option(help="Backend of the replay.")] = REFERENCE,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Check a file's hashes and ranges, and replay a stored run.

    Exit code 1 if a layer differs from the stored run, or a range does not hold.
    """
    output = Output(as_json=json)
    with output.progress(f"{backend.value}: {net.stem}") as task:
        found = spikeport.verify(
            net,
            samples,
            record=record,
            backend=backend.value,
            time_limit=time_limit,
            progress=task.update,
        )
    report: dict[str, Any] = {
        "program_hash": found.program.hash,
        "manifest": dict(found.program.provenance),
        "ranges_hold": found.ranges_hold,
        "replays": [r.describe() for r in found.kept],
    }
    _show(found, output)
    if found.replayed is not None:
        report["replayed"] = found.replayed.describe()
        told = "".join(f", {k} {percent(value)}" for k, value in (found.quality or {}).items())
        output.say(f"{found.replayed.data}: {found.replayed.samples} samples{told}")
        if record:
            output.say(f"kept in {net}")
        else:
            report["differences"] = list(found.differences)
            _tell(found.differences, output)
    report["verified"] = found.verified
    output.result(report)
    if not found.verified:
        raise typer.Exit(FAILED)


def _show(found: Verification, output: Output) -> None:
    program, kept = found.program, found.kept
    origin = program.provenance
    training = program.origin("training", dict) or {}
    integers = program.origin("integers", dict) or {}
    ranges = "proved for every input" if found.ranges_hold else "not proved: runs watch them"
    rows = [
        ("program", program.hash),
        ("checkpoint", origin.get("checkpoint_sha256") or origin.get("weights_sha256") or "-"),
        ("made by", origin.get("command", "-")),
        ("spikeport", origin.get("spikeport", "-")),
        ("trained on", training.get("data", "-")),
        ("training data", origin.get("training_data_sha256") or "-"),
        ("training seed", training.get("seed", "-")),
        ("calibrated on", integers.get("calibration") or "-"),
        ("calibration data", integers.get("calibration_sha256") or "-"),
        ("ranges", ranges),
    ]
    output.table(("", "as the file says"), rows, program.name)
    if kept:
        runs = [(r.data, r.samples, r.data_sha256[:16]) for r in kept]
        output.table(("replay", "samples", "sha256 of the data"), runs, "kept runs")


def _tell(differences: tuple[str, ...], output: Output) -> None:
    if differences:
        output.say(f"differs: {', '.join(differences)} (the first is where to look)", "red")
    else:
        output.say("every spike and potential of every layer as it was", "green")
