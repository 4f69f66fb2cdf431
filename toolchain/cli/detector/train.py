"""`spikeport detector train`: a quantized detector on images with boxes, seeded and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain.cli.options import Json
from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import parse_pixels
from toolchain.cli.stops import kept_epochs, telling

if TYPE_CHECKING:
    from toolchain.learning.detection.checkpoint import DetectorCheckpoint
    from toolchain.learning.detection.config import DetectorConfig


def command(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the checkpoint.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="voc:PATH, or shapes; its train split trains, its val split chooses.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings as TOML or YAML; a run leaves its own."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="resnet18, resnet34, resnet50, vgg11 or vgg16.  [resnet18]"),
    ] = None,
    neck: Annotated[str | None, typer.Option(help="spp or dilated.  [spp]")] = None,
    head: Annotated[str | None, typer.Option(help="decoupled or plain.  [decoupled]")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels from one cell to the next, 16 or 32.  [16]")
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor on the number of channels.  [0.25]")
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Images are scaled to fit.  [320x240]"),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="cqrelu, nq, qcfs or relu.  [cqrelu]")
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Quantization levels.  [4]")] = None,
    pooling: Annotated[str | None, typer.Option(help="average or max.  [max]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.  [300]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.  [16]")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its peak.  [0.003]")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's.  [0.02]")] = None,
    augment: Annotated[
        str | None, typer.Option(help="Of flip, scale, colour; with commas, or none.  [all]")
    ] = None,
    fixed_noise: Annotated[
        float | None, typer.Option(help="nq: noise, in thresholds.  [0.05]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides start and order.  [0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.  [auto]")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bf16.  [auto]")] = None,
    json: Json = False,
) -> None:
    """Train a quantized detector; repeated, it goes on after a stop.

    The epoch kept is the best by mAP on the val split; the test split is not touched.
    """
    given = {
        "data": data,
        "backbone": backbone,
        "neck": neck,
        "head": head,
        "stride": stride,
        "width": width,
        "input_size": None if input_size is None else parse_pixels("--input-size", input_size),
        "activation": activation,
        "levels": levels,
        "pooling": pooling,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "augment": None if augment is None else _names(augment),
        "fixed_noise": fixed_noise,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    output = Output(as_json=json)
    settings = _settings(config, {k: v for k, v in given.items() if v is not None})
    checkpoint = _train(settings, out, output)
    best = checkpoint.history[checkpoint.epoch - 1]
    measured = percent(best.get("held_out_map50")), percent(best.get("held_out_map"))
    output.say(
        f"kept epoch {checkpoint.epoch} of {settings.epochs}: mAP@0.5 {measured[0]}, "
        f"mAP@[.5:.95] {measured[1]} on the val split"
    )
    output.say(f"wrote {out}/model.safetensors, checkpoint.json, config.toml and log.jsonl")
    if settings.activation == "cqrelu":
        output.say(f"next: spikeport convert {out} -o NET.net --neuron cif --calibrate DATA")
    else:
        output.say(f"next: spikeport convert {out} -o NET.net")
    output.result({"out": str(out), "epoch": checkpoint.epoch, "history": checkpoint.history})


def _names(text: str) -> tuple[str, ...]:
    return tuple(n.strip() for n in text.split(",") if n.strip() not in ("", "none"))


def _settings(file: Path | None, given: dict[str, Any]) -> DetectorConfig:
    from toolchain.errors import DataError
    from toolchain.learning.detection.config import DetectorConfig
    from toolchain.learning.training.config_file import read_settings

    values = {**(read_settings(file) if file else {}), **given}
    if "data" not in values:
        raise DataError(
            "a data source is needed", node="training", remedy="--data voc:PATH, or in --config"
        )
    return DetectorConfig.from_dict(values)


def _train(config: DetectorConfig, out: Path, output: Output) -> DetectorCheckpoint:
    """Train and show each epoch's loss, the last mAP, and the time left."""
    from toolchain.learning.detection.task import train_detector

    loss = precision = ""
    with output.progress("training") as task:

        def progress(epoch: int, done: int, metrics: dict[str, float] | None) -> None:
            nonlocal loss, precision
            if metrics is not None:
                loss = f"loss {metrics['loss']:.3f}"
                if "held_out_map50" in metrics:
                    precision = f", mAP@0.5 {percent(metrics['held_out_map50'])}"
            note = f"epoch {min(epoch + 1, config.epochs)}/{config.epochs} {loss}{precision}"
            task.update(100 * epoch + done, 100 * config.epochs, note)

        with telling(lambda: kept_epochs(out)):
            return train_detector(config, out, progress)
