"""`spikeport convert`: a trained network to an integer spiking program in a `.net` file."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.cli.calibration import open_calibration
from toolchain.cli.counts import divisors, real_numbers
from toolchain.cli.heap import collecting_later, keep_heap
from toolchain.cli.inputs import data_path, network_path
from toolchain.cli.options import Adapters, Json
from toolchain.cli.output import Output, percent
from toolchain.errors import ConversionError, DataError

if TYPE_CHECKING:
    from toolchain.cli.network import FloatNetwork, InputDescription, Network
    from toolchain.conversion.integers.calibration import Calibration
    from toolchain.conversion.pipeline import Conversion
    from toolchain.program.int_program import IntProgram, Schedule

DEFAULT_STEPS = 4
DEFAULT_SLEEP_FACTOR = 4
"""Sleep steps a wake step where neither --sleep nor --calibrate is given; runs report what has
not settled."""
ASSUMED_INPUT = (
    "samples are taken as 0 .. 1 (pixel / 255) and as they are: if the network was trained on "
    "normalised samples, give --mean and --std; on another range, --input-range"
)
CALIBRATION_SAMPLES = 256
CALIBRATION_SEED = 0
RANDOM_WEIGHTS = (
    "no --weights were given: the weights are those FACTORY returns, random ones unless it loads "
    "its own"
)


class NirReset(str, Enum):
    """What the tool that wrote a NIR graph does when a neuron has fired."""

    SUBTRACT = "subtract"
    ZERO = "zero"


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT|FILE.py:FACTORY|model:NAME",
            help="What to convert; FACTORY also as package.module:FACTORY; model:NAME takes "
            "weights of torchvision or timm; or a FILE.nir.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.net", help="File to write.")],
    neuron: Annotated[str, typer.Option(help="if or cif.")] = "if",
    steps: Annotated[int | None, typer.Option(min=1, help="Time steps T (IF).")] = None,
    wake: Annotated[int | None, typer.Option(min=1, help="Wake steps Q (CIF).")] = None,
    sleep: Annotated[int | None, typer.Option(min=0, help="Sleep steps S (CIF).")] = None,
    weight_bits: Annotated[int, typer.Option(help="Signed width of the weights.")] = 8,
    target: Annotated[
        str | None,
        typer.Option(help="Whose registers must hold it (default loihi2; stock-netx for --stock)."),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Data to measure on: sleep steps (CIF), gptq, thresholds of ReLUs, saturation.",
        ),
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="How many samples of it, chosen at random.")
    ] = CALIBRATION_SAMPLES,
    calibration_seed: Annotated[
        int, typer.Option(min=0, help="Seed of that choice.")
    ] = CALIBRATION_SEED,
    thresholds: Annotated[
        str, typer.Option(help="search (smallest rounding error) or largest (that fits).")
    ] = "search",
    rounding: Annotated[
        str, typer.Option(help="nearest, or gptq (errors make up for each other; --calibrate).")
    ] = "nearest",
    allow_clipping: Annotated[
        bool, typer.Option("--allow-clipping", help="Clip outlier weights where that costs less.")
    ] = False,
    relu_percentile: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Threshold of plain ReLUs: this percentile (99.9; --calibrate)."
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Show what integers cost each layer.")
    ] = False,
    adapter: Adapters = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="State dict for FILE.py:FACTORY or model:NAME (.safetensors, .pt)."),
    ] = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="C,H,W", help="Sample shape; a checkpoint knows its own.")
    ] = None,
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Real values samples may take, before --mean and --std (default 0,1). Pixels are "
            "0 .. 1; floats are taken as they are.",
        ),
    ] = None,
    input_bits: Annotated[int, typer.Option(min=1, max=24, help="Width of an input spike.")] = 8,
    mean: Annotated[
        str,
        typer.Option(
            help="Subtracted from samples: one per channel, or one for all; 128/255 is a number."
        ),
    ] = "0",
    std: Annotated[
        str, typer.Option(help="Divides what is left: one per channel, or one for all.")
    ] = "1",
    nir_reset: Annotated[
        NirReset | None,
        typer.Option(help="FILE.nir of another tool: what it does when a neuron has fired."),
    ] = None,
    watch_ranges: Annotated[
        bool, typer.Option(help="Accept unproved ranges; runs then watch them.")
    ] = False,
    pooling: Annotated[
        str,
        typer.Option(
            help="Average pools: fold into the layers behind, stage (a population that sums), or "
            "auto, which folds where that is exact."
        ),
    ] = "auto",
    stock: Annotated[
        bool, typer.Option("--stock", help="Write plain CUBA layers for stock lava-dl (T = 1).")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a trained network into an integer IF or CIF network.

    It provably fits its registers. The steps are: trace, fold BatchNorm, concatenations and pools,
    check against the module, integerise with one exact threshold per channel, prove all ranges,
    write, read back.
    """
    from toolchain.output_policy import NETWORK, check_output

    read = [network_path(source), weights, data_path(calibrate), *(adapter or [])]
    check_output(out, NETWORK, [*read, None if target is None else Path(target)])
    with collecting_later():
        from hw_models.profile import load_profile
        from toolchain.cli.network import InputDescription, load_network
        from toolchain.conversion import pipeline
        from toolchain.conversion.adapters import load_adapter_file
        from toolchain.conversion.float_passes import trained_levels
        from toolchain.conversion.integers.rounding_error import load_compiled

    keep_heap()
    output = Output(as_json=json)
    if Path(source).suffix == ".nir" and _is_ours(Path(source)):
        _from_nir(Path(source), out, output)
        return
    limits = load_profile(target or ("stock-netx" if stock else "loihi2")).as_target_limits()
    for path in adapter or []:
        load_adapter_file(path)
    description = InputDescription(
        _shape(input_shape) if input_shape else None,
        _interval(input_range),
        input_bits,
        real_numbers("--mean", mean),
        divisors("--std", std),
    )
    network: Network | FloatNetwork
    if Path(source).suffix == ".nir":
        network = _foreign(Path(source), description, steps or DEFAULT_STEPS, nir_reset)
    else:
        network = load_network(source, weights, description)
    unsaid = [RANDOM_WEIGHTS] if weights is None and "factory" in network.provenance else []
    if "training" not in network.provenance and (input_range, mean, std) == (None, "0", "1"):
        unsaid.append(ASSUMED_INPUT)
    levels = network.levels
    if neuron == "cif" and wake is None and levels is None:
        levels = trained_levels(network.model, network.quantizer.shape)
    schedule = _schedule(neuron, steps, wake, sleep, levels)
    options = pipeline.ConversionOptions(
        neuron,
        schedule,
        weight_bits,
        watch_ranges,
        pooling,
        thresholds=thresholds,
        rounding=rounding,
        allow_clipping=allow_clipping,
        relu_percentile=relu_percentile,
    )
    calibration = None
    if calibrate is not None:
        calibration = open_calibration(
            calibrate, network.quantizer, calibration_samples, calibration_seed
        )
    # It shares its time with tracing the network and checking the trace.
    Thread(target=load_compiled).start()
    name, provenance = network.name, {**network.provenance, **_made()}
    prepared = pipeline.prepare(
        network.model, network.quantizer, options, limits, calibration=calibration
    )
    del network  # its weights are not needed beside the folded ones
    conversion = pipeline.lower(prepared, name=name, provenance=provenance)
    if calibration is not None and neuron == "cif" and sleep is None:
        conversion = _settled(conversion, calibration)
    _write(conversion.program, out, stock)
    conversion = replace(conversion, notes=(*unsaid, *conversion.notes))
    _report(conversion, out, output, losses=report)


def _made() -> dict[str, Any]:
    """How the file was made: the command and the versions that could make a difference."""
    import numpy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["numpy"] = numpy.__version__
    return {"command": f"spikeport {shlex.join(sys.argv[1:])}", "versions": versions}


def _is_ours(path: Path) -> bool:
    from exports.nir import is_ours

    return is_ours(path)


def _foreign(
    path: Path, description: InputDescription, steps: int, reset: NirReset | None
) -> FloatNetwork:
    """The network in another tool's NIR graph."""
    from exports.nir import Reset, read_foreign_nir
    from toolchain.cli.network import float_network

    program = read_foreign_nir(path, steps, None if reset is None else Reset(reset.value))
    return float_network(program, path, description)


def _from_nir(path: Path, out: Path, output: Output) -> None:
    """The program in a NIR graph of this project, as it was; other options say nothing to it."""
    from exports.netx import write_net
    from exports.nir import has_hash, read_nir

    program = read_nir(path)
    if not has_hash(path):
        output.say("note: the graph has no hash of its program, so that a change would go unseen")
    write_net(program, out)
    output.say(f"wrote {out}, the program in {path} as it was")
    output.result({"out": str(out), "program_hash": program.hash})


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(
            "not numbers separated by commas", node="--input-shape", found=text[:80]
        ) from error


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    values = real_numbers("--input-range", text)
    if len(values) != 2 or not values[0] < values[1]:
        raise DataError("needs LOW,HIGH with LOW < HIGH", node="--input-range", found=text)
    return (values[0], values[1])


def _schedule(
    neuron: str, steps: int | None, wake: int | None, sleep: int | None, levels: int | None
) -> Schedule:
    from toolchain.program.int_program import Schedule

    if neuron != "cif":
        if wake is not None or sleep is not None:
            raise ConversionError("--wake and --sleep go with --neuron cif", found=neuron)
        return Schedule(steps or DEFAULT_STEPS)
    if steps is not None:
        raise ConversionError("--steps goes with --neuron if; CIF takes --wake and --sleep")
    wake = wake or levels or DEFAULT_STEPS
    return Schedule(wake, DEFAULT_SLEEP_FACTOR * wake if sleep is None else sleep)


def _settled(conversion: Conversion, calibration: Calibration) -> Conversion:
    """The conversion with the sleep steps measured on the calibration samples."""
    from toolchain.simulator.settle import with_measured_sleep

    settled = with_measured_sleep(conversion.program, calibration.inputs)
    note = (
        f"settles within {settled.measured} sleep steps on {len(calibration.inputs)} samples of "
        f"{calibration.name}"
    )
    notes = (*conversion.notes, note)
    return replace(conversion, program=settled.program, bounds=settled.bounds, notes=notes)


def _write(program: IntProgram, out: Path, stock: bool) -> None:
    from exports.netx import write_net, write_stock_net

    (write_stock_net if stock else write_net)(program, out)


def _report(conversion: Conversion, out: Path, output: Output, *, losses: bool) -> None:
    program = conversion.program
    rounding = {r.name: r for r in conversion.rounding}
    rows = []
    for b in conversion.bounds:
        population, r = program.population(b.name), rounding.get(b.name)
        thresholds = f"{r.threshold_low}..{r.threshold_high}" if r and r.threshold_high else "-"
        rows.append(
            (
                b.name,
                "x".join(str(s) for s in population.shape),
                population.neuron.kind,
                thresholds,
                f"{100 * r.weight_error:.2f} %" if r else "-",
                f"{r.zeroed}/{r.weights}" if r else "-",
                f"{b.headroom_bits(program.state_range):.1f}",
            )
        )
    columns = (
        "layer",
        "shape",
        "neuron",
        "thresholds",
        "weight error",
        "rounded to 0",
        "headroom bits",
    )
    schedule = program.schedule
    output.table(
        columns,
        rows,
        f"{program.name}: {schedule.wake_steps} wake + {schedule.sleep_steps} sleep steps, "
        f"{program.weight_bits}-bit weights",
    )
    if losses:
        _losses(conversion, output)
    for note in conversion.notes:
        output.say(f"note: {note}")
    output.say(f"wrote {out}")
    output.result(
        {
            "out": str(out),
            "program_hash": program.hash,
            "wake_steps": schedule.wake_steps,
            "sleep_steps": schedule.sleep_steps,
            "layers": [asdict(r) for r in conversion.rounding],
            "bounds": [
                {"name": b.name, "low": b.state.low, "high": b.state.high}
                for b in conversion.bounds
            ],
            "notes": list(conversion.notes),
        }
    )


def _losses(conversion: Conversion, output: Output) -> None:
    """A table of what integers cost each layer."""
    output.table(
        ("layer", "thresholds", "weights SQNR", "saturated", "rounded to 0", "clipped"),
        [
            (
                r.name,
                f"{r.threshold_low}..{r.threshold_high}" if r.threshold_high else "-",
                "exact" if r.sqnr_db is None else f"{r.sqnr_db:.1f} dB",
                percent(r.saturated),
                f"{r.zeroed}/{r.weights}",
                f"{r.clipped}/{r.weights}",
            )
            for r in conversion.rounding
        ],
        "losses by layer; saturated: pre-activations at or above the threshold, on the "
        "calibration data",
    )
