"""`spikeport convert`: a trained network to an integer spiking program in a `.net` file."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import spikeport
from toolchain.cli.heap import collecting_later, keep_heap
from toolchain.cli.options import (
    Adapters,
    Calibrate,
    CalibrationSamples,
    InputRange,
    InputShape,
    Json,
    Mean,
    NetworkSource,
    Std,
    Weights,
)
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import data_path, network_path
from toolchain.cli.wording import as_options
from toolchain.errors import ConversionError

if TYPE_CHECKING:
    from toolchain.conversion.pipeline import Conversion


class NeuronKind(str, Enum):
    """Neurons of the spiking network."""

    IF = "if"
    CIF = "cif"


class Thresholds(str, Enum):
    """Choice of the threshold per channel."""

    SEARCH = "search"
    LARGEST = "largest"


class Rounding(str, Enum):
    """Rounding of weights: each to the nearest integer, or GPTQ on calibration samples."""

    NEAREST = "nearest"
    GPTQ = "gptq"


class Pooling(str, Enum):
    """Placement of average pools: in the next layer's weights, or as populations of sums."""

    AUTO = "auto"
    FOLD = "fold"
    STAGE = "stage"


class NirReset(str, Enum):
    """Reset of a neuron after a spike, in the tool that wrote a NIR graph."""

    SUBTRACT = "subtract"
    ZERO = "zero"


def command(
    source: NetworkSource,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="NET.net", help="File to write.")],
    neuron: Annotated[
        NeuronKind, typer.Option(help="Neurons of the spiking network.")
    ] = NeuronKind.IF,
    steps: Annotated[int | None, typer.Option(min=1, help="Time steps T (IF).")] = None,
    wake: Annotated[int | None, typer.Option(min=1, help="Wake steps Q (CIF).")] = None,
    sleep_steps: Annotated[
        int | None, typer.Option("--sleep", min=0, help="Sleep steps S (CIF).")
    ] = None,
    max_spike: Annotated[
        int,
        typer.Option(min=1, help="Largest graded spike K (IF): K spikes of a step as one message."),
    ] = 1,
    weight_bits: Annotated[int, typer.Option(help="Signed width of the weights.")] = 8,
    target: Annotated[
        str | None,
        typer.Option(
            help="Hardware whose registers it must fit (default loihi2; stock-netx for --stock)."
        ),
    ] = None,
    calibrate: Calibrate = None,
    calibration_samples: CalibrationSamples = 256,
    calibration_seed: Annotated[int, typer.Option(min=0, help="Seed of the random choice.")] = 0,
    thresholds: Annotated[
        Thresholds,
        typer.Option(help="Smallest rounding error (search), or largest threshold that fits."),
    ] = Thresholds.SEARCH,
    rounding: Annotated[
        Rounding | None,
        typer.Option(
            help="gptq: rounding errors compensate each other (--calibrate; default where plain "
            "ReLUs are fitted)."
        ),
    ] = None,
    allow_clipping: Annotated[
        bool,
        typer.Option("--allow-clipping", help="Clip outlier weights if that lowers the error."),
    ] = False,
    relu_percentile: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Plain ReLUs: threshold per channel, this percentile of its outputs; by default "
            "fitted to --calibrate.",
        ),
    ] = None,
    fit_weights: Annotated[
        bool,
        typer.Option(
            "--fit-weights/--keep-weights", help="Plain ReLUs: fit the weights behind them too."
        ),
    ] = True,
    report: Annotated[
        bool, typer.Option("--report", help="Show the rounding errors of each layer.")
    ] = False,
    adapters: Adapters = None,
    weights: Weights = None,
    input_shape: InputShape = None,
    input_range: InputRange = None,
    input_bits: Annotated[
        int, typer.Option(min=1, max=24, help="Width of an input spike, in bits.")
    ] = 8,
    mean: Mean = "0",
    std: Std = "1",
    input_per_step: Annotated[
        bool,
        typer.Option(
            "--input-per-step",
            help="Samples change over time: a tensor for each wake step, (N, T, C, H, W).",
        ),
    ] = False,
    nir_reset: Annotated[
        NirReset | None,
        typer.Option(help="FILE.nir of another tool: how its neurons are reset after a spike."),
    ] = None,
    watch_ranges: Annotated[
        bool, typer.Option(help="Accept unproved ranges; runs then watch them.")
    ] = False,
    pooling: Annotated[
        Pooling,
        typer.Option(
            help="Average pools: fold into the following layers, stage (a sum population), or "
            "auto, which folds if that is exact."
        ),
    ] = Pooling.AUTO,
    stock: Annotated[
        bool, typer.Option("--stock", help="Write plain CUBA layers for stock lava-dl (T = 1).")
    ] = False,
    json: Json = False,
) -> None:
    """Convert a trained network into an integer IF or CIF network.

    The result provably fits its registers. Steps: trace; fold BatchNorm, concatenations, pools;
    check against the module, integerise with one exact threshold per channel, prove all ranges,
    write, read back.
    """
    from toolchain.output_policy import NETWORK, check_output

    read = [network_path(source), weights, data_path(calibrate), *(adapters or [])]
    check_output(out, NETWORK, [*read, None if target is None else Path(target)])
    with collecting_later():
        import_module("spikeport.conversion")
    keep_heap()
    output = Output(as_json=json)
    if Path(source).suffix == ".nir" and _is_ours(Path(source)):
        _from_nir(Path(source), out, output)
        return
    conversion = spikeport.convert(
        source,
        weights=weights,
        input_shape=input_shape,
        input_range=input_range,
        input_bits=input_bits,
        mean=mean,
        std=std,
        input_per_step=input_per_step,
        calibrate=calibrate,
        calibration_samples=calibration_samples,
        calibration_seed=calibration_seed,
        neuron=neuron.value,
        steps=_steps(neuron, steps, wake, sleep_steps),
        sleep_steps=sleep_steps,
        max_spike=max_spike,
        weight_bits=weight_bits,
        target=target or ("stock-netx" if stock else "loihi2"),
        pooling=pooling.value,
        thresholds=thresholds.value,
        rounding=None if rounding is None else rounding.value,
        allow_clipping=allow_clipping,
        relu_percentile=relu_percentile,
        fit_weights=fit_weights,
        watch_ranges=watch_ranges,
        adapters=adapters or (),
        nir_reset=None if nir_reset is None else nir_reset.value,
        provenance={"command": f"spikeport {shlex.join(sys.argv[1:])}"},
    )
    spikeport.save(conversion, out, stock=stock)
    _report(conversion, out, output, losses=report)


def _is_ours(path: Path) -> bool:
    from exports.nir import is_ours

    return is_ours(path)


def _from_nir(path: Path, out: Path, output: Output) -> None:
    """The program in a NIR graph of this project, unchanged; other options have no effect on it."""
    from exports.nir import has_hash

    program = spikeport.load(path)
    if not has_hash(path):
        output.say("note: the graph has no hash of its program, so that a change would go unseen")
    spikeport.save(program, out)
    output.say(f"wrote {out}, the program in {path} as it was")
    output.result({"out": str(out), "program_hash": program.hash})


def _steps(
    neuron: NeuronKind, steps: int | None, wake: int | None, sleep: int | None
) -> int | None:
    """Time steps of IF neurons, or wake steps of CIF neurons, if given."""
    if neuron is NeuronKind.CIF:
        if steps is not None:
            raise ConversionError("--steps goes with --neuron if; CIF takes --wake and --sleep")
        return wake
    if wake is not None or sleep is not None:
        raise ConversionError("--wake and --sleep go with --neuron cif", found=neuron.value)
    return steps


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
    notes = as_options(conversion.notes)
    for note in notes:
        output.say(f"note: {note}")
    from spikeport.agreement import GOOD

    found = conversion.agreement
    if found is not None and found.fraction >= GOOD:
        of = f"{found.correct} of {found.total} calibration samples"
        output.say(f"the class of the trained network on {of}")
    output.say(f"wrote {out}")
    output.result(
        {
            "out": str(out),
            "agreement": None if found is None else found.describe(),
            "program_hash": program.hash,
            "wake_steps": schedule.wake_steps,
            "sleep_steps": schedule.sleep_steps,
            "layers": [asdict(r) for r in conversion.rounding],
            "bounds": [
                {"name": b.name, "low": b.state.low, "high": b.state.high}
                for b in conversion.bounds
            ],
            "notes": notes,
        }
    )


def _losses(conversion: Conversion, output: Output) -> None:
    """Print a table of the rounding errors per layer."""
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
