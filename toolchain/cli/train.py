"""`spikeport train`: a quantized network on a data source, seeded and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolchain.cli.options import Data, Json
from toolchain.cli.output import Output, percent

if TYPE_CHECKING:
    from toolchain.training.checkpoint import Checkpoint
    from toolchain.training.config import TrainConfig


def command(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the checkpoint.")],
    model: Annotated[str, typer.Option(help="lenet or mlp.")] = "lenet",
    activation: Annotated[str, typer.Option(help="nq, qcfs or cqrelu.")] = "nq",
    levels: Annotated[int, typer.Option(help="Quantization levels L (Q for cqrelu).")] = 4,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 20,
    width: Annotated[float, typer.Option(help="Factor on the number of channels.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Samples a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Start of the cosine schedule.")] = 0.05,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 5e-4,
    initial_threshold: Annotated[
        float, typer.Option(help="Start of the trained threshold (nq, qcfs).")
    ] = 8.0,
    seed: Annotated[int, typer.Option(help="Decides the split, the start and the order.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use so many training samples, drawn by the seed."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a quantized network; run again with the same settings to continue after a stop.

    A tenth of the training split is held out for every choice; the test split is not touched.
    """
    from toolchain.training.config import TrainConfig

    output = Output(as_json=json)
    config = TrainConfig(
        data=data,
        model=model,
        activation=activation,
        width=width,
        levels=levels,
        initial_threshold=initial_threshold,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        train_limit=limit,
    )
    checkpoint = train_with_progress(config, out, output)
    best = checkpoint.history[checkpoint.epoch - 1]
    output.say(
        f"kept epoch {checkpoint.epoch} of {config.epochs}: held-out accuracy "
        f"{percent(best['held_out_quantized'])} quantized"
        + (f", {percent(best['held_out_spiking'])} spiking" if "held_out_spiking" in best else "")
    )
    output.say(f"wrote {out}/model.safetensors and {out}/checkpoint.json")
    output.say(f"next: spikeport convert {out} -o NET.net")
    output.result({"out": str(out), "epoch": checkpoint.epoch, "history": checkpoint.history})


def train_with_progress(config: TrainConfig, out: Path, output: Output) -> Checkpoint:
    """Train and show each epoch's loss and held-out accuracy."""
    from toolchain.training.trainer import train

    with output.progress("training") as task:

        def progress(epoch: int, done: int, metrics: dict[str, float] | None) -> None:
            note = ""
            if metrics is not None:
                note = f"epoch {epoch + 1}, loss {metrics['loss']:.4f}, held out " + percent(
                    metrics["selection"]
                )
            task.update(100 * epoch + done, 100 * config.epochs, note)

        return train(config, out, progress)
