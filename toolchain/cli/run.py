"""`spikeport run`: a `.net` file over a data source, on the reference simulator or on Lava."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from spikeport.backends import BACKENDS, Lava, Reference, open_backend
from toolchain.cli.options import Data, Jobs, Json, Net, Scheduler, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, number_or_file, parse_size, typed
from toolchain.cli.stops import KEPT_NOTHING, telling
from toolchain.recording_mode import Mode

if TYPE_CHECKING:
    from toolchain.program.int_program import IntProgram


class BackendName(str, Enum):
    """Backend that runs a program: the names in the registry."""

    _ignore_ = "_name"
    for _name in BACKENDS:
        vars()[_name.upper()] = _name


REFERENCE = BackendName(Reference.name)


class Models(str, Enum):
    """Lava models; all give the same bits."""

    FIXED_PT = "fixed_pt"
    FAST = "fast"


LONG = 60.0
"""Seconds of a run on stock synapses from which the fast models are recommended."""


class NeuronImpl(str, Enum):
    """Neurons in Lava with stock synapses; all give the same bits."""

    OWN = "own"
    ATRLIF = "atrlif"


class EngineName(str, Enum):
    """Method of the reference simulator; all give the same bits."""

    AUTO = "auto"
    FAST = "fast"
    STEPWISE = "stepwise"


def command(
    net: Net,
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="REC.npz", help="Recording to write.")
    ],
    backend: Annotated[BackendName, typer.Option(help="Simulator.")] = REFERENCE,
    record: Annotated[Mode, typer.Option(help="Detail of the recording.")] = Mode.FULL,
    models: Annotated[
        Models | None,
        typer.Option(
            help="On Lava: stock synapses (fixed_pt), or one process per block of layers (fast)."
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="Reference: layer by layer (fast), step by step (stepwise), or the one that gives "
            "its result first [auto].",
        ),
    ] = None,
    memory: Annotated[
        Any,
        typed(
            "--memory",
            parse_size,
            metavar="SIZE",
            help="Reference, fast: memory limit, such as 2GB.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cuda[:N]", help="Reference, fast: a GPU (experimental)."),
    ] = None,
    neuron_impl: Annotated[
        NeuronImpl | None,
        typer.Option(help="On Lava: this project's neurons, or Lava's ATRLIF for IF networks."),
    ] = None,
    watch_ranges: Annotated[
        bool,
        typer.Option(
            "--watch-ranges",
            help="ATRLIF: run even if the worst case does not fit; stop if a value does not.",
        ),
    ] = False,
    blocks: Annotated[
        Any,
        typed(
            "--blocks",
            number_or_file,
            metavar="N|MAP.json",
            help="Fast models: number of processes for the network [1], or one for each chip of a "
            "partition.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fast models: samples that advance together [16].")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="On Lava: continue after the last finished sample of an interrupted run.",
        ),
    ] = False,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Run a network on data and record every layer.

    With --jobs or --scheduler the recording is the same to the byte; limits of memory and time are
    those of each worker.
    """
    from spikeport.running import open_for, quality, run_data
    from toolchain.output_policy import RECORDING, check_output, tell_replaced
    from toolchain.recording.parts import Parts
    from toolchain.workers import open_workers

    output = Output(as_json=json)
    options: dict[str, Any] = {
        "models": models and models.value,
        "engine": engine and engine.value,
        "memory": memory,
        "device": device,
        "neuron_impl": neuron_impl and neuron_impl.value,
        "watch_ranges": watch_ranges or None,
        "blocks": blocks,
        "batch": batch,
        "resume": resume or None,
    }
    options = {name: value for name, value in options.items() if value is not None}
    check_output(out, RECORDING, [net, data_path(data)])
    parts = out.with_name(f"{out.name}.parts")
    if backend.value == Lava.name:
        options |= {"time_limit": time_limit}
        if jobs == 1 and scheduler is None:
            options |= {"parts": parts}
    chosen = open_backend(backend.value, **options)
    program = spikeport.load(net)
    tell_replaced(out, program.hash)
    samples = open_for(program, data)
    if isinstance(chosen, Lava) and chosen.models == Models.FIXED_PT.value:
        _announce(program, len(samples), output)
    with (
        telling(lambda: _kept(parts)),
        output.progress(f"{backend.value}: {program.name}") as task,
        open_workers(jobs, scheduler) as workers,
    ):
        recording = run_data(program, samples, chosen, record.value, task.update, workers)
    recording.save(out)
    if backend.value == Lava.name:
        Parts.remove_folder(parts)
    unsettled = sum(recording.meta["unsettled"].values())
    measured = quality(program, recording, samples)
    output.table(
        ("", "value"),
        [
            ("samples", recording.meta["num_samples"]),
            *((name, percent(value)) for name, value in measured.items()),
            ("synops per sample", f"{recording.synops / recording.meta['num_samples']:,.0f}"),
        ],
        f"{program.name} on {backend.value}",
    )
    if unsettled and program.schedule.sleep_steps:
        output.say(
            f"warning: {unsettled} neurons had not settled; convert with more --sleep steps",
            "yellow",
        )
    output.say(f"wrote {out}")
    output.result({"out": str(out), **measured, **recording.meta})


def _kept(parts: Path) -> str:
    """A note on the finished samples of a stopped run, and how to continue."""
    if parts.is_dir():
        return f"finished samples are kept in {parts}; --resume goes on behind them"
    return KEPT_NOTHING


def _announce(program: IntProgram, num_samples: int, output: Output) -> None:
    from exports.lava.stock_time import stock_seconds

    seconds = stock_seconds(program, num_samples)
    if seconds > LONG:
        output.say(
            f"stock synapses will take about {seconds / 60:,.0f} minutes; --models fast gives the "
            "same bits at once",
            "yellow",
        )
