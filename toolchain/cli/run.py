"""`spikeport run`: a `.net` file over a data source, on the reference simulator or on Lava."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.inputs import data_path
from toolchain.cli.options import Data, Json, Net, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.sizes import parse_size
from toolchain.cli.stops import KEPT_NOTHING, telling

if TYPE_CHECKING:
    from exports.lava import LavaModels
    from toolchain.data import BoxDataset, Dataset
    from toolchain.program.int_program import IntProgram
    from toolchain.recording import Recording


class Backend(str, Enum):
    """Where a program runs."""

    REFERENCE = "reference"
    LAVA = "lava"


class Models(str, Enum):
    """Which models Lava runs; the bits are the same."""

    FIXED_PT = "fixed_pt"
    FAST = "fast"


LONG = 60.0
"""Seconds of a run on stock synapses from which the user is told of the fast models."""


class NeuronImpl(str, Enum):
    """Whose neurons Lava runs behind stock synapses; the bits are the same."""

    OWN = "own"
    ATRLIF = "atrlif"


class Way(str, Enum):
    """How the reference simulator goes; the bits are the same."""

    FAST = "fast"
    STEPWISE = "stepwise"


@dataclass(frozen=True)
class Simulation:
    """How the reference simulator goes, in how many bytes, and where."""

    way: str = Way.FAST.value
    memory: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class KeptParts:
    """Where finished parts of a Lava run are kept, and whether to go on behind them."""

    folder: Path
    resume: bool


class Record(str, Enum):
    """How much a recording keeps."""

    FULL = "full"
    COUNTS = "counts"
    DIGEST = "digest"
    EVENTS = "events"


def command(
    net: Net,
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="REC.npz", help="Recording to write.")
    ],
    backend: Annotated[Backend, typer.Option(help="Simulator.")] = Backend.REFERENCE,
    record: Annotated[Record, typer.Option(help="How much to keep.")] = Record.FULL,
    models: Annotated[
        Models,
        typer.Option(help="On Lava: stock synapses (fixed_pt), or whole blocks of layers (fast)."),
    ] = Models.FIXED_PT,
    way: Annotated[
        Way,
        typer.Option(
            "--engine",
            help="Reference: layer by layer (fast), or step by step as the contract reads.",
        ),
    ] = Way.FAST,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Reference, fast: memory to work in, like 2GB."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cuda[:N]", help="Reference, fast: a GPU instead of the processor."),
    ] = None,
    neuron_impl: Annotated[
        NeuronImpl,
        typer.Option(help="On Lava: this project's neurons, or Lava's ATRLIF for IF networks."),
    ] = NeuronImpl.OWN,
    watch_ranges: Annotated[
        bool,
        typer.Option(
            "--watch-ranges",
            help="ATRLIF: run also where the worst case does not fit; stop if a value does not.",
        ),
    ] = False,
    blocks: Annotated[
        int, typer.Option(min=1, help="Fast models: processes the network is cut into.")
    ] = 1,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Fast models: samples that advance together [16].")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="On Lava: go on behind what an interrupted run finished."),
    ] = False,
    time_limit: TimeLimit = 3600.0,
    json: Json = False,
) -> None:
    """Run a network over data and record what every layer did."""
    from exports.netx import read_net
    from toolchain.cli.data import open_for
    from toolchain.output_policy import RECORDING, check_output
    from toolchain.recording.parts import Parts
    from toolchain.recording.recording import recorded_program

    output = Output(as_json=json)
    how = _simulation(backend, way, memory, device)
    choice = _models(backend, models, blocks, batch)
    if neuron_impl is NeuronImpl.ATRLIF or watch_ranges:
        choice = _atrlif(backend, choice, neuron_impl, watch_ranges=watch_ranges)
    if resume and backend is not Backend.LAVA:
        raise typer.BadParameter("--resume needs --backend lava")
    check_output(out, RECORDING, [net, data_path(data)])
    program = read_net(net)
    dataset = open_for(program, data)
    earlier = recorded_program(out)
    if backend is Backend.LAVA and choice.tag == Models.FIXED_PT.value:
        _announce(program, len(dataset), output)
    parts = out.with_name(f"{out.name}.parts")
    kept = KeptParts(parts, resume) if backend is Backend.LAVA else None
    with telling(lambda: _kept(parts)):
        recording = execute(
            program, dataset, backend, record, output, time_limit, choice, kept, how
        )
    recording.save(out)
    if kept:
        Parts.remove_folder(parts)
    unsettled = sum(recording.meta["unsettled"].values())
    quality = measured_quality(program, recording, dataset)
    output.table(
        ("", "value"),
        [
            ("samples", recording.meta["num_samples"]),
            *((name, percent(value)) for name, value in quality.items()),
            ("synops per sample", f"{synops(recording) / recording.meta['num_samples']:,.0f}"),
        ],
        f"{program.name} on {backend.value}",
    )
    if unsettled and program.schedule.sleep_steps:
        output.say(
            f"warning: {unsettled} neurons had not settled; convert with more --sleep steps",
            "yellow",
        )
    output.say(f"wrote {out}")
    if earlier is not None and earlier != program.hash:
        output.say(f"note: it replaces a recording of another program ({earlier[:16]})")
    output.result({"out": str(out), **quality, **recording.meta})


def _kept(parts: Path) -> str:
    """What a run that is stopped leaves, and how to go on."""
    if parts.is_dir():
        return f"finished samples are kept in {parts}; --resume goes on behind them"
    return KEPT_NOTHING


def measured_quality(
    program: IntProgram, recording: Recording, dataset: Dataset | BoxDataset
) -> dict[str, float | None]:
    """Accuracy of a classifier, average precision of a detector; nothing of other networks."""
    from toolchain.data import BoxDataset

    if isinstance(dataset, BoxDataset):
        from toolchain.detection.average_precision import average_precision
        from toolchain.detection.detections import detect, real_outputs
        from toolchain.detection.spec import DetectorSpec

        outputs = real_outputs(program, recording.outputs)
        found = average_precision(detect(DetectorSpec.of(program), outputs, dataset), dataset)
        return {"mAP@0.5": found.at_half, "mAP@[.5:.95]": found.mean}
    return {"accuracy": recording.accuracy()} if recording.is_classifier else {}


def _simulation(backend: Backend, way: Way, memory: str | None, device: str | None) -> Simulation:
    """What the options say; raises BadParameter where they contradict each other."""
    asked = memory is not None or device is not None
    if backend is not Backend.REFERENCE and (way is not Way.FAST or asked):
        raise typer.BadParameter("--engine, --memory and --device need --backend reference")
    if way is Way.STEPWISE and asked:
        raise typer.BadParameter("--memory and --device need --engine fast")
    size = None if memory is None else parse_size(memory)
    return Simulation(way.value, size, None if device == "cpu" else device)


def _models(backend: Backend, models: Models, blocks: int, batch: int | None) -> LavaModels:
    """What the options say; raises BadParameter where they contradict each other."""
    from exports.lava import STOCK, LavaModels

    if models is Models.FAST and backend is Backend.LAVA:
        return LavaModels.fast(blocks, **({} if batch is None else {"batch": batch}))
    if (models, blocks, batch) != (Models.FIXED_PT, 1, None):
        raise typer.BadParameter("--models, --blocks and --batch need --backend lava --models fast")
    return STOCK


def _announce(program: IntProgram, num_samples: int, output: Output) -> None:
    from exports.lava.stock_time import stock_seconds

    seconds = stock_seconds(program, num_samples)
    if seconds > LONG:
        output.say(
            f"stock synapses will take about {seconds / 60:,.0f} minutes; --models fast gives the "
            "same bits at once",
            "yellow",
        )


def _atrlif(
    backend: Backend, models: LavaModels, neuron_impl: NeuronImpl, *, watch_ranges: bool
) -> LavaModels:
    from exports.lava import STOCK, LavaModels

    if neuron_impl is NeuronImpl.OWN:
        raise typer.BadParameter("--watch-ranges needs --neuron-impl atrlif")
    if backend is not Backend.LAVA or models != STOCK:
        raise typer.BadParameter(
            "--neuron-impl atrlif needs --backend lava, and stands behind stock synapses: "
            "leave out --models fast"
        )
    return LavaModels.atrlif(watch_ranges=watch_ranges)


def synops(recording: Recording) -> int:
    """All synaptic operations of a recording (graded magnitude not counted)."""
    return sum(recording.meta["synops"].values())


def execute(
    program: IntProgram,
    dataset: Dataset | BoxDataset,
    backend: Backend,
    record: Record,
    output: Output,
    time_limit: float,
    models: LavaModels | None = None,
    kept: KeptParts | None = None,
    how: Simulation | None = None,
) -> Recording:
    """Run `program` over `dataset` with progress shown; stock Lava models unless told otherwise."""
    from toolchain.data import Dataset, input_spikes
    from toolchain.recording import Mode

    inputs = input_spikes(program.input, dataset)
    labels = dataset.labels if isinstance(dataset, Dataset) else None
    mode = Mode(record.value)
    how = how or Simulation()
    device = None
    if how.device is not None:
        from toolchain.simulator.engine.device_layers import open_device

        device = open_device(how.device)
    with output.progress(f"{backend.value}: {program.name}") as task:
        if backend is Backend.REFERENCE:
            from toolchain.simulator.simulate import Way, simulate

            recording = simulate(
                program,
                inputs,
                mode=mode,
                labels=labels,
                way=Way(how.way),
                memory=how.memory,
                device=device,
                progress=task.update,
            )
        else:
            from exports.lava import STOCK, run_on_lava

            recording = run_on_lava(
                program,
                inputs,
                models=models or STOCK,
                mode=mode,
                labels=labels,
                time_limit=time_limit,
                progress=task.update,
                parts=kept.folder if kept else None,
                resume=kept.resume if kept else False,
            )
    recording.meta["data"] = dataset.name
    return recording
