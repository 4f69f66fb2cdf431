"""`spikeport compare`: two recordings bit by bit; exit 1 on any difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import spikeport
from toolchain.cli.options import Json
from toolchain.cli.output import Output
from toolchain.cli.param_types import data_path

if TYPE_CHECKING:
    from toolchain.recording import Divergence, Recording


def command(
    expected: Annotated[Path, typer.Argument(metavar="A.npz", help="Expected recording.")],
    found: Annotated[Path, typer.Argument(metavar="B.npz", help="Recording to check.")],
    reproduce: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="On a difference, write one sample, the part of the network it needs and a script "
            "that shows it; needs --net.",
        ),
    ] = None,
    net: Annotated[
        Path | None, typer.Option(metavar="NET.net", help="Network of both recordings.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Data of both recordings, if they do not name it."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare two recordings and name the first divergence.

    A divergence names a layer, a step and a neuron, and ends with exit code 1.
    """
    from toolchain.recording import Recording, compare

    if (reproduce is None) != (net is None) or (data is not None and reproduce is None):
        raise typer.BadParameter("--reproduce, --net and --data go together")
    output = Output(as_json=json)
    if reproduce is not None:
        _check_reproducer(reproduce, [expected, found, net, data_path(data)])
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
    result = comparison.as_dict()
    if comparison.first and reproduce is not None and net is not None:
        script = _reproduce(first, second, comparison.first, net, data, reproduce, output)
        output.say(f"wrote {script}; run it: python {script}")
        result["reproducer"] = str(script)
    output.result(result)
    if not comparison.equal:
        raise typer.Exit(1)


def _check_reproducer(folder: Path, read: list[Path | None]) -> None:
    """Raise OutputError if the files of a reproducer would replace other files."""
    from spikeport.reproducer import NET, SAMPLE, SCRIPT
    from toolchain.output_policy import NETWORK, check_output
    from toolchain.output_policy import SAMPLE as SAMPLE_FILE
    from toolchain.output_policy import SCRIPT as SCRIPT_FILE

    for name, kind in ((NET, NETWORK), (SAMPLE, SAMPLE_FILE), (SCRIPT, SCRIPT_FILE)):
        if folder.exists():
            check_output(folder / name, kind, read)


def _reproduce(
    first: Recording,
    second: Recording,
    divergence: Divergence,
    net: Path,
    data: str | None,
    folder: Path,
    output: Output,
) -> Path:
    """Write a reproducer; raises SpikeportError if that is impossible."""
    from spikeport.reproducer import locate, write_reproducer
    from spikeport.running import open_for
    from spikeport.showing import check_program
    from toolchain.errors import RecordingError
    from toolchain.learning.data import input_spikes

    program = spikeport.load(net)
    for recording in (first, second):
        check_program(recording, program)
    source = data or first.meta.get("data")
    if source is None:
        raise RecordingError("the recording does not name its data", remedy="give --data")
    inputs = input_spikes(program.input, open_for(program, source))
    runs = (first.meta, second.meta)
    with output.progress(f"searching {divergence.layer} for the sample") as task:
        divergence = locate(program, inputs, divergence, runs, task.update)
    return write_reproducer(program, inputs, divergence, runs, folder)
