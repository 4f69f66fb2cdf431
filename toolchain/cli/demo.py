"""`spikeport demo`: the whole way on handwritten digits, every bit compared."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import spikeport
from toolchain.cli.doctor import install_lava, lava_is_missing
from toolchain.cli.options import Json, TimeLimit
from toolchain.cli.output import Output, percent
from toolchain.cli.train import train_with_progress

if TYPE_CHECKING:
    from toolchain.conversion.pipeline import Conversion
    from toolchain.recording import Comparison, Recording

EPOCHS, LEVELS, SEED = 20, 4, 0
BATCH_SIZE = 64
INITIAL_THRESHOLD = 2.0
"""Initial threshold of the demo's activations.

In a short run, the papers' 8 does not decrease to the small activations of this network.
"""
SETTLE_SAMPLES = 200
SLEEP_FACTOR = 2
"""Factor on the sleep steps that the training images needed, since test images may need more."""


@dataclass(frozen=True)
class _Row:
    conversion: Conversion
    file: Path
    reference: Recording
    lava: Recording | None
    comparison: Comparison | None


def command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(
        "demo"
    ),
    install: Annotated[
        bool, typer.Option(help="Install Lava into this environment if it is missing.")
    ] = True,
    time_limit: TimeLimit = 600.0,
    json: Json = False,
) -> None:
    """Train, convert, run on both simulators, compare every bit.

    A noisy-quantized network on scikit-learn's digits becomes an IF network (T = 4) and a CIF
    network with wake-sleep; every spike and membrane potential of every layer and step of all
    test images is compared between the two simulators.
    """
    from toolchain.files import make_folder
    from toolchain.learning.activations import ActivationMode
    from toolchain.learning.data import open_split
    from toolchain.learning.training.config import TrainConfig
    from toolchain.learning.training.inference import accuracy, logits, normalised
    from toolchain.output_policy import NETWORK, RECORDING, check_output

    started = time.monotonic()
    output = Output(as_json=json)
    with_lava = not lava_is_missing() or (install and install_lava(output))
    make_folder(out)
    for neuron in ("if", "cif"):
        check_output(out / f"digits-{neuron}.net", NETWORK)
        check_output(out / f"digits-{neuron}-reference.npz", RECORDING)
        check_output(out / f"digits-{neuron}-lava.npz", RECORDING)
    config = TrainConfig(
        data="digits",
        activation="nq",
        levels=LEVELS,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        initial_threshold=INITIAL_THRESHOLD,
        seed=SEED,
    )
    run = out / "digits-nq"
    checkpoint = train_with_progress(config, run, output)
    test = open_split("digits@test")
    x = normalised(test, config.mean, config.std)
    ann = {
        mode: accuracy(logits(checkpoint.model, x, mode), test.labels)
        for mode in (ActivationMode.CLIPPED, ActivationMode.QUANTIZED)
    }
    rows = [
        _run(_convert(run, neuron, output), neuron, out, with_lava, output, time_limit)
        for neuron in ("if", "cif")
    ]
    table = [
        _cells(row, ann[ActivationMode.CLIPPED], ann[ActivationMode.QUANTIZED]) for row in rows
    ]
    columns = (
        "network",
        "float ANN",
        "quantized ANN",
        "integer reference",
        "Lava",
        "mismatches",
        "values compared",
        "synops per image",
    )
    output.table(columns, table, f"{len(test)} test images of scikit-learn's digits")
    for row in rows:
        output.say(f"wrote {row.file}  ({row.conversion.program.hash[:16]})")
        if row.comparison is not None and not row.comparison.equal:
            output.say(f"first divergence: {row.comparison.first}", "red")
        unsettled = sum(row.reference.meta["unsettled"].values())
        if unsettled and row.conversion.program.schedule.sleep_steps:
            output.say(
                f"{unsettled} neurons had not settled; more sleep steps are needed", "yellow"
            )
    output.say(f"wrote {out}/digits-nq/model.safetensors, checkpoint.json; recordings in {out}")
    if not with_lava:
        output.say("Lava is not installed, so nothing was compared: spikeport doctor --fix", "red")
    output.say(f"{time.monotonic() - started:.0f} s in all")
    failed = any(r.comparison is None or not r.comparison.equal for r in rows)
    output.result(_json(rows, ann[ActivationMode.CLIPPED], ann[ActivationMode.QUANTIZED], failed))
    if failed:
        raise typer.Exit(1)


def _convert(run: Path, neuron: str, output: Output) -> Conversion:
    settle = f"digits@train[:{SETTLE_SAMPLES}]"
    name = f"{run.name}-{neuron}"
    if neuron == "if":
        return spikeport.convert(run, steps=LEVELS, name=name)
    measured = spikeport.convert(run, neuron=neuron, calibrate=settle, name=name)
    needed = measured.program.schedule.sleep_steps
    output.progress_line(
        f"CIF settles within {needed} sleep steps on {SETTLE_SAMPLES} training images; using "
        f"{SLEEP_FACTOR * needed}"
    )
    return spikeport.convert(run, neuron=neuron, sleep_steps=SLEEP_FACTOR * needed, name=name)


def _run(
    conversion: Conversion,
    neuron: str,
    out: Path,
    with_lava: bool,
    output: Output,
    time_limit: float,
) -> _Row:
    from spikeport.backends import Backend, Lava, Reference

    file = out / f"digits-{neuron}.net"
    spikeport.save(conversion, file)
    backends: list[Backend] = [Reference()]
    if with_lava:
        backends.append(Lava(time_limit=time_limit))
    runs = []
    for backend in backends:
        with output.progress(f"{backend.name}: {conversion.program.name}") as task:
            runs.append(spikeport.run(file, "digits@test", backend=backend, progress=task.update))
        runs[-1].save(out / f"digits-{neuron}-{backend.name}.npz")
    if not with_lava:
        return _Row(conversion, file, runs[0], None, None)
    reference, lava = runs
    return _Row(conversion, file, reference, lava, spikeport.compare(reference, lava))


def _cells(row: _Row, float_ann: float, quantized_ann: float) -> tuple[Any, ...]:
    program = row.conversion.program
    schedule = program.schedule
    steps = (
        f"T={schedule.wake_steps}"
        if not schedule.sleep_steps
        else f"wake {schedule.wake_steps}, sleep {schedule.sleep_steps}"
    )
    return (
        f"{program.spiking[0].neuron.kind}, {steps}",
        percent(float_ann),
        percent(quantized_ann),
        percent(row.reference.accuracy()),
        percent(row.lava.accuracy()) if row.lava else "not run",
        row.comparison.total if row.comparison else "-",
        f"{row.comparison.compared:,}" if row.comparison else "-",
        f"{row.reference.synops / row.reference.meta['num_samples']:,.0f}",
    )


def _json(rows: list[_Row], float_ann: float, quantized_ann: float, failed: bool) -> dict[str, Any]:
    return {
        "ok": not failed,
        "float_ann": float_ann,
        "quantized_ann": quantized_ann,
        "networks": [
            {
                "file": str(row.file),
                "program_hash": row.conversion.program.hash,
                "reference": row.reference.accuracy(),
                "lava": row.lava.accuracy() if row.lava else None,
                "comparison": row.comparison.as_dict() if row.comparison else None,
                "synops": row.reference.synops,
                "unsettled": row.reference.meta["unsettled"],
            }
            for row in rows
        ],
    }
