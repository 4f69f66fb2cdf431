"""`spikeport train`: a quantized network on a data source, seeded and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.cli.options import Json
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import divisors, real_numbers
from toolchain.cli.stops import kept_epochs, telling

if TYPE_CHECKING:
    from toolchain.learning.training.checkpoint import Checkpoint
    from toolchain.learning.training.config import TrainConfig

TARGET = "loihi2"
"""Whose limits --calibration integer converts for."""


def command(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the checkpoint.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="As for `run`; its train split is used."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Settings as TOML or YAML; a run leaves its own in RUN/config.toml.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="paper (NQ, 400 epochs), casc (CQReLU, 300) or short (30, for a CPU)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="lenet, mlp, vgg11, vgg16, resnet18, resnet20, resnet34 or resnet50.  [lenet]"
        ),
    ] = None,
    activation: Annotated[str | None, typer.Option(help="nq, qcfs, cqrelu or relu.  [nq]")] = None,
    levels: Annotated[
        int | None, typer.Option(help="Quantization levels L (Q for cqrelu).  [4]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data.  [20]")] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor on the number of channels.  [1]")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="average or max.  [average]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.  [128]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the learning rate.  [0.05]")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="cosine, epoch-cosine or onecycle.  [cosine]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="L2 penalty.  [5e-4]")] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of the target spread over all classes.  [0]")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Of crop, flip, autoaugment, cutout, cutout-black; with commas, or none.  [none]"
        ),
    ] = None,
    initial_threshold: Annotated[
        float | None, typer.Option(help="Start of the trained threshold (nq, qcfs).  [8]")
    ] = None,
    calibration_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the spiking network that noise is estimated from.  [4]"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Its form: float, or integer (converted, 8 bits).  [float]"),
    ] = None,
    calibration_samples: Annotated[
        int | None, typer.Option(help="Held-out samples it runs on.  [all]")
    ] = None,
    noise_start: Annotated[
        int | None, typer.Option(help="First epoch after which noise is estimated.  [1]")
    ] = None,
    noise_every: Annotated[
        int | None, typer.Option(help="Epochs from one estimate to the next.  [1]")
    ] = None,
    fixed_noise: Annotated[
        float | None,
        typer.Option(help="Instead: noise in every layer, in thresholds."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Taken from real values, one per channel; 128/255 is a number.  [0]"),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divides what is left.  [1]")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of the train split held out for choices.  [0.1]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides the split, the start and the order.  [0]")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="How many training samples are used, drawn by the seed."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [auto]")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (bf16 where it is native), float32 or bf16.  [auto]"),
    ] = None,
    json: Json = False,
) -> None:
    """Train a quantized network; repeated, it goes on after a stop.

    A tenth of the training split is held out for every choice; the test split is not touched.
    Settings come from the command line, then --config, then --recipe, then the defaults.
    """
    given = {
        "data": data,
        "model": model,
        "activation": activation,
        "width": width,
        "pooling": pooling,
        "levels": levels,
        "initial_threshold": initial_threshold,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "augment": _names(augment),
        "calibration_steps": calibration_steps,
        "calibration": calibration,
        "calibration_samples": calibration_samples,
        "noise_start": noise_start,
        "noise_every": noise_every,
        "fixed_noise": fixed_noise,
        "mean": None if mean is None else real_numbers("--mean", mean),
        "std": None if std is None else divisors("--std", std),
        "held_out": held_out,
        "seed": seed,
        "train_limit": limit,
        "device": device,
        "precision": precision,
    }
    output = Output(as_json=json)
    settings = _settings(recipe, config, {k: v for k, v in given.items() if v is not None})
    checkpoint = train_with_progress(settings, out, output)
    best = checkpoint.history[checkpoint.epoch - 1]
    output.say(
        f"kept epoch {checkpoint.epoch} of {settings.epochs}: held-out accuracy "
        f"{percent(best['held_out_quantized'])}"
        + (f", {percent(best['held_out_spiking'])} spiking" if "held_out_spiking" in best else "")
    )
    output.say(f"wrote {out}/model.safetensors, checkpoint.json, config.toml and log.jsonl")
    output.say(f"next: spikeport convert {out} -o NET.net")
    output.result({"out": str(out), "epoch": checkpoint.epoch, "history": checkpoint.history})


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(n.strip() for n in text.split(",") if n.strip() not in ("", "none"))


def _settings(recipe: str | None, file: Path | None, given: dict[str, Any]) -> TrainConfig:
    from toolchain.errors import DataError
    from toolchain.learning.training.config import TrainConfig
    from toolchain.learning.training.config_file import read_settings
    from toolchain.learning.training.recipes import RECIPES

    if recipe is not None and recipe not in RECIPES:
        raise DataError("no such recipe", node=recipe, allowed=", ".join(RECIPES))
    values = dict(RECIPES[recipe]) if recipe else {}
    values |= read_settings(file) if file else {}
    values |= given
    if "data" not in values:
        raise DataError(
            "a data source is needed", node="training", remedy="--data SOURCE, or in --config"
        )
    return TrainConfig.from_dict(values)


def train_with_progress(config: TrainConfig, out: Path, output: Output) -> Checkpoint:
    """Train and show each epoch's loss and held-out accuracies, and the time left."""
    from hw_models.profile import load_profile
    from toolchain.learning.training.classification import train

    limits = load_profile(TARGET).as_target_limits()
    last = ""
    with output.progress("training") as task:

        def progress(epoch: int, done: int, metrics: dict[str, float] | None) -> None:
            nonlocal last
            if metrics is not None:
                last = f"loss {metrics['loss']:.3f}, held out " + percent(
                    metrics["held_out_quantized"]
                )
                if "held_out_spiking" in metrics:
                    last += f", spiking {percent(metrics['held_out_spiking'])}"
            note = f"epoch {min(epoch + 1, config.epochs)}/{config.epochs} {last}"
            task.update(100 * epoch + done, 100 * config.epochs, note)

        with telling(lambda: kept_epochs(out)):
            return train(config, out, progress, limits)
