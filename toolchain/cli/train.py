"""`spikeport train`: a quantized network on a data source, seeded and resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import divisors, names, real_numbers
from toolchain.cli.training import (
    DEVICE,
    chosen,
    say_kept,
    setting,
    text_setting,
    with_progress,
    with_settings,
)

if TYPE_CHECKING:
    from toolchain.learning.training.checkpoint import Checkpoint
    from toolchain.learning.training.config import TrainConfig

TARGET = "loihi2"
"""Whose limits --calibration integer converts for."""
SETTINGS = {
    "data": setting(str, "As for `run`; its train split is used.", metavar="SOURCE"),
    "config": setting(
        Path, "Settings as TOML or YAML; a run leaves its own in RUN/config.toml.", metavar="FILE"
    ),
    "recipe": setting(str, "paper (NQ, 400 epochs), casc (CQReLU, 300) or short (30, for a CPU)."),
    "model": setting(
        str,
        "lenet, mlp, vgg11, vgg16, resnet18, resnet20, resnet34 or resnet50; or FILE.py:FACTORY, "
        "a network of yours, whose ReLUs the activation replaces.  [lenet]",
    ),
    "weights": setting(str, "Where your network's training starts.", metavar="FILE"),
    "init": setting(
        str,
        "Start from the tensors of a run, or of a file of weights, as far as they fit.",
        metavar="RUN|FILE",
    ),
    "teacher": setting(
        str, "A finished run whose outputs are learned beside the labels.", metavar="RUN"
    ),
    "activation": setting(str, "nq, qcfs, cqrelu or relu.  [nq]"),
    "levels": setting(int, "Quantization levels L (Q for cqrelu).  [4]"),
    "epochs": setting(int, "Passes over the training data.  [20]"),
    "width": setting(float, "Factor on the number of channels.  [1]"),
    "pooling": setting(str, "average or max.  [average]"),
    "batch_size": setting(int, "Samples per step.  [128]"),
    "learning_rate": setting(float, "Peak of the learning rate.  [0.05]"),
    "schedule": setting(str, "cosine, epoch-cosine, step or onecycle.  [cosine]"),
    "warm_up": setting(int, "Epochs of a linear rise before it.  [0]", min=0),
    "optimizer": setting(str, "sgd, or adamw (with a learning rate of about 0.001).  [sgd]"),
    "weight_decay": setting(float, "L2 penalty.  [5e-4]"),
    "label_smoothing": setting(float, "Share of the target spread over all classes.  [0]"),
    "augment": text_setting(
        names,
        "Of crop, flip, autoaugment, cutout, cutout-black; with commas, or none.  [none]",
        "--augment",
    ),
    "initial_threshold": setting(float, "Start of the trained threshold (nq, qcfs).  [8]"),
    "calibration_steps": setting(
        int, "Steps of the spiking network that noise is estimated from.  [4]"
    ),
    "calibration": setting(str, "Its form: float, or integer (converted, 8 bits).  [float]"),
    "calibration_samples": setting(int, "Held-out samples it runs on.  [all]"),
    "noise_start": setting(int, "First epoch after which noise is estimated.  [1]"),
    "noise_every": setting(int, "Epochs from one estimate to the next.  [1]"),
    "fixed_noise": setting(
        float,
        "Instead: noise in every layer, in thresholds; with own errors that of the potentials that "
        "neurons begin with.",
    ),
    "errors": setting(
        str,
        "Errors of spikes in training: modelled (NQ's noise), or own: the spiking network itself "
        "is trained, for the last epochs, from --init, at a rate of about 0.01.  [modelled]",
    ),
    "mean": text_setting(
        real_numbers, "Taken from real values, one per channel; 128/255 is a number.  [0]", "--mean"
    ),
    "std": text_setting(divisors, "Divides what is left.  [1]", "--std"),
    "held_out": setting(float, "Share of the train split held out for choices.  [0.1]"),
    "seed": setting(int, "Decides the split, the start and the order.  [0]", min=0),
    "train_limit": setting(
        int, "How many training samples are used, drawn by the seed.", "--limit", min=1
    ),
    "device": setting(str, DEVICE),
    "precision": setting(str, "auto (bf16 where it is native), float32 or bf16.  [auto]"),
}


@with_settings(SETTINGS)
def command(
    folder: Path, config: Path | None, recipe: str | None, json: bool, **given: object
) -> None:
    """Train a quantized network; repeated, it goes on after a stop.

    A tenth of the training split is held out for every choice; the test split is not touched.
    Settings come from the command line, then --config, then --recipe, then the defaults.
    """
    from toolchain.errors import DataError
    from toolchain.learning.training.config import TrainConfig
    from toolchain.learning.training.ranks import launched
    from toolchain.learning.training.recipes import RECIPES

    is_first = launched().is_first
    output = Output(as_json=json or not is_first)
    if recipe is not None and recipe not in RECIPES:
        raise DataError("no such recipe", node=recipe, allowed=", ".join(RECIPES))
    values = chosen(given, config, "SOURCE", RECIPES[recipe] if recipe else None)
    kept = train_with_progress(TrainConfig.from_dict(values), folder, output)
    if not is_first:
        return
    best = kept.history[kept.epoch - 1]
    quality = f"held-out accuracy {percent(best['held_out_quantized'])}"
    if "held_out_spiking" in best:
        quality += f", {percent(best['held_out_spiking'])} spiking"
    say_kept(kept, folder, output, quality, "")


def train_with_progress(config: TrainConfig, out: Path, output: Output) -> Checkpoint:
    """Train and show each epoch's loss and held-out accuracies, and the time left."""
    from hw_models.profile import load_profile
    from toolchain.learning.training.train_classifier import train

    limits = load_profile(TARGET).as_target_limits()

    def summary(metrics: dict[str, float]) -> str:
        text = f"loss {metrics['loss']:.3f}, held out {percent(metrics['held_out_quantized'])}"
        if "held_out_spiking" in metrics:
            text += f", spiking {percent(metrics['held_out_spiking'])}"
        return text

    return with_progress(
        lambda progress: train(config, out, progress, limits), config.epochs, out, output, summary
    )
