"""`spikeport verify` tells whether a file is what it says, and still does what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.cli.options import Json, Net, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.run import Backend, Record, execute, measured_quality
from toolchain.errors import RecordingError

if TYPE_CHECKING:
    from toolchain.program.int_program import IntProgram
    from toolchain.recording.replay import Replay

FAILED = 1


def command(
    net: Net,
    data: Annotated[
        str | None, typer.Option("--data", metavar="SOURCE", help="Data to replay.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep what this run did in the file, to verify later.")
    ] = False,
    backend: Annotated[Backend, typer.Option(help="Where it is replayed.")] = Backend.REFERENCE,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Check a file's hashes and ranges, and replay a kept run.

    Exit code 1 if a layer does not do what it did when the run was kept, or a range does not hold.
    """
    from exports.netx import read_net
    from exports.netx.replays import add_replay, read_replays
    from toolchain.files import check_writable

    output = Output(as_json=json)
    if data is None and (record or backend is not Backend.REFERENCE):
        raise typer.BadParameter("--record and --backend need --data")
    program = read_net(net)
    if record:
        check_writable(net)
    kept = read_replays(net)
    report: dict[str, Any] = {
        "program_hash": program.hash,
        "manifest": dict(program.provenance),
        "ranges_hold": _ranges_hold(program),
        "replays": [r.describe() for r in kept],
    }
    _show(program, kept, report, output)
    verified = bool(report["ranges_hold"] or program.watch_ranges)
    if data is not None:
        replay, quality = _replay(program, data, backend, output, time_limit)
        report["replayed"] = replay.describe()
        told = "".join(f", {name} {percent(value)}" for name, value in quality.items())
        output.say(f"{replay.data}: {replay.samples} samples{told}")
        if record:
            add_replay(net, replay)
            output.say(f"kept in {net}")
        else:
            report["differences"] = _compare(replay, kept)
            verified = verified and not report["differences"]
            _tell(report["differences"], output)
    report["verified"] = verified
    output.result(report)
    if not verified:
        raise typer.Exit(FAILED)


def _ranges_hold(program: IntProgram) -> bool:
    from toolchain.program.range_certificate import range_certificate

    return bool(range_certificate(program)["holds"])


def _show(program: IntProgram, kept: list[Replay], report: dict[str, Any], output: Output) -> None:
    origin = program.provenance
    training = program.origin("training", dict) or {}
    integers = program.origin("integers", dict) or {}
    ranges = "proved for every input" if report["ranges_hold"] else "not proved: runs watch them"
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


def _replay(
    program: IntProgram, data: str, backend: Backend, output: Output, time_limit: float
) -> tuple[Replay, dict[str, float | None]]:
    from toolchain.cli.data import open_for
    from toolchain.recording.replay import Replay

    dataset = open_for(program, data)
    models = None
    if backend is Backend.LAVA:
        from exports.lava import LavaModels

        models = LavaModels.fast()
    recording = execute(program, dataset, backend, Record.DIGEST, output, time_limit, models)
    quality = measured_quality(program, recording, dataset)
    return Replay.of(recording, dataset.name, dataset.sha256), quality


def _compare(replay: Replay, kept: list[Replay]) -> list[str]:
    """Layers that differ from the kept run of the same data.

    Raises
    ------
    RecordingError
        If there is none, or it tells of other layers.
    """
    for other in kept:
        if other.data_sha256 == replay.data_sha256:
            return replay.differences(other)
    raise RecordingError(
        "no run of these data is kept in the file",
        node=replay.data,
        found=replay.data_sha256,
        allowed=", ".join(f"{r.data} ({r.data_sha256[:16]})" for r in kept) or "none is kept",
        remedy="spikeport verify NET.net --data D --record keeps one",
    )


def _tell(differences: list[str], output: Output) -> None:
    if differences:
        output.say(f"differs: {', '.join(differences)} (the first is where to look)", "red")
    else:
        output.say("every spike and potential of every layer as it was", "green")
