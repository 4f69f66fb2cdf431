"""Everything that decides a training run, saved next to its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from toolchain.errors import DataError
from toolchain.learning.activations import ACTIVATIONS
from toolchain.learning.models import POOLINGS
from toolchain.learning.training.augment import AUGMENTATIONS
from toolchain.learning.training.device import DEVICES, PRECISIONS
from toolchain.learning.training.settings import (
    COUNT,
    LEARNING,
    Bounds,
    check_bounds,
    check_choices,
    typed_settings,
)

PLAIN_RELU = "relu"
"""Trains a plain ReLU network; its thresholds are chosen when it is converted."""
ACTIVATION_NAMES = (*ACTIVATIONS, PLAIN_RELU)
CALIBRATIONS = ("float", "integer")
SCHEDULES = ("cosine", "epoch-cosine", "onecycle")
INITIAL_WEIGHTS = ("he", "torch")
CHOICES = {
    "activation": ACTIVATION_NAMES,
    "augment": AUGMENTATIONS,
    "pooling": POOLINGS,
    "device": DEVICES,
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "calibration": CALIBRATIONS,
    "initial_weights": INITIAL_WEIGHTS,
}
BOUNDS = {
    **LEARNING,
    "momentum": Bounds(0, 1, open_high=True),
    "label_smoothing": Bounds(0, 1, open_high=True),
    "held_out": Bounds(0, 1, open_low=True, open_high=True),
    "calibration_steps": Bounds(1, 1024),
    "calibration_samples": COUNT,
    "noise_start": COUNT,
    "noise_every": COUNT,
    "train_limit": Bounds(1, 1e12),
}


@dataclass(frozen=True)
class TrainConfig:
    """Defaults follow the official NQ code: SGD 0.05, momentum 0.9, cosine, L = 4.

    Attributes
    ----------
    data, model, activation, width, pooling:
        Names as on the command line; `width` scales the channels of the model.
    levels:
        Quantization levels L (Q for CQReLU).
    initial_threshold:
        Start value of the trained threshold; the papers use 8.
    initial_weights:
        "he" (`models.parts.initialise`), or "torch": as torch's modules start.
    learning_rate, schedule, warm_up:
        Peak of the learning rate, and how it changes over the run: along half a cosine, step by
        step or once per epoch, or by OneCycle (Smith & Topin, 2018; torch's defaults). A cosine
        may begin with `warm_up` epochs of a linear rise.
    label_smoothing:
        Share of the target spread evenly over all classes.
    augment:
        Names of `augment.AUGMENTATIONS`.
    held_out:
        Fraction of the training split held out for every choice (10 %, as the papers).
    calibration_steps:
        Steps of the spiking network that sigma is estimated from (`val_sim_len`).
    calibration:
        "float" or "integer": which form of the spiking network sigma is estimated from.
    calibration_samples, calibration_augment:
        Held-out samples the spiking network runs on, from the first; None for all. Whether they
        are changed as training samples are, anew after each epoch.
    noise_start, noise_every:
        NQ: sigma is estimated after epoch `noise_start` and every `noise_every` epochs from then
        on; it is 0 before.
    fixed_noise:
        NQ: instead of estimating, sigma of every layer is this times its threshold.
    train_limit:
        How many training samples are used, drawn by the seed; None for all.
    mean, std:
        Normalisation per channel, before input quantization.
    device, precision:
        Names of `device.DEVICES` and `device.PRECISIONS`.
    """

    data: str
    model: str = "lenet"
    activation: str = "nq"
    width: float = 1.0
    pooling: str = "average"
    levels: int = 4
    initial_threshold: float = 8.0
    initial_weights: str = "he"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.05
    schedule: str = "cosine"
    warm_up: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: tuple[str, ...] = ()
    seed: int = 0
    held_out: float = 0.1
    calibration_steps: int = 4
    calibration: str = "float"
    calibration_samples: int | None = None
    calibration_augment: bool = False
    noise_start: int = 1
    noise_every: int = 1
    fixed_noise: float | None = None
    train_limit: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        check_choices(self, CHOICES)
        if self.warm_up >= self.epochs or (self.warm_up and self.schedule == "onecycle"):
            raise DataError(
                "warm_up is a part of a cosine's epochs",
                node="training",
                found=f"warm_up = {self.warm_up}, epochs = {self.epochs}, {self.schedule}",
            )
        if self.calibration_augment and self.calibration == "integer":
            raise DataError(
                "changed samples do not lie on the grid that an integer network reads",
                node="calibration_augment",
                remedy='calibration = "float"',
            )

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of `as_dict`; an unknown field or a wrong type is a CheckpointError."""
        return typed_settings(cls, values)
