"""Everything that decides a training run, saved next to its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from toolchain.errors import DataError
from toolchain.learning.activations import IF_ACTIVATIONS
from toolchain.learning.training import settings
from toolchain.learning.training.augment import AUGMENTATIONS
from toolchain.learning.training.settings import COUNT, NOISE, Bounds, Count, Settings

CALIBRATIONS = ("float", "integer")
ERRORS = ("modelled", "own")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "epoch-cosine", "step", "onecycle")
INITIAL_WEIGHTS = ("he", "torch")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Defaults follow the official NQ code: SGD 0.05, momentum 0.9, cosine, L = 4.

    Attributes
    ----------
    data, model, activation, width, pooling:
        Names as on the command line; `width` scales the channels of the model. FILE.py:FACTORY as
        `model` is a network of the user's, whose ReLUs the activation replaces.
    weights, model_sha256:
        With FILE.py:FACTORY: the file of weights that training starts from, and the SHA-256 of the
        file that makes the network, which `train` fills in.
    levels:
        Quantization levels L (Q for CQReLU).
    initial_threshold:
        Start value of the trained threshold; the papers use 8.
    initial_weights:
        "he" (`models.parts.initialise`), or "torch": as torch's modules start.
    learning_rate, schedule, warm_up:
        Peak of the learning rate, and how it changes over the run: along half a cosine, step by
        step or once per epoch, by a tenth after half and three quarters of the run, or by OneCycle
        (Smith & Topin, 2018; torch's defaults). All but the last may begin with `warm_up` epochs
        of a linear rise.
    optimizer, momentum, weight_decay:
        "sgd", or "adamw", whose beta 1 `momentum` is, and whose usual learning rate is 0.001.
    init:
        A checkpoint folder or a file of weights whose tensors the run starts from, as far as they
        fit. So a finished run is trained on, or NQ started from a QCFS or ReLU network.
    teacher:
        A checkpoint folder whose network's outputs are learned beside the labels
        (`training.teacher`).
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
        NQ: instead of estimating, sigma of every layer is this times its threshold. With own errors
        the noise of the potentials that neurons begin with, by default none.
    errors:
        What stands for the spiking network's errors in training: "modelled" by the activation (NQ's
        noise; QCFS models none), or its "own": it is trained itself, over `calibration_steps` steps
        (`training.own_errors`).
    train_limit:
        How many training samples are used, drawn by the seed; None for all.
    mean, std:
        Normalisation per channel, before input quantization.
    device, precision:
        Names of `device.DEVICES` and `device.PRECISIONS`.
    """

    data: str
    model: str = "lenet"
    activation: settings.Activation = "nq"
    width: settings.Width = 1.0
    pooling: settings.Pooling = "average"
    levels: settings.Levels = 4
    initial_threshold: settings.Threshold = 8.0
    initial_weights: Annotated[str, INITIAL_WEIGHTS] = "he"
    epochs: Count = 20
    batch_size: Count = 128
    learning_rate: settings.LearningRate = 0.05
    schedule: Annotated[str, SCHEDULES] = "cosine"
    warm_up: settings.WarmUp = 0
    optimizer: Annotated[str, OPTIMIZERS] = "sgd"
    momentum: Annotated[float, Bounds(0, 1, open_high=True)] = 0.9
    weight_decay: settings.WeightDecay = 5e-4
    label_smoothing: Annotated[float, Bounds(0, 1, open_high=True)] = 0.0
    augment: Annotated[tuple[str, ...], AUGMENTATIONS] = ()
    seed: settings.Seed = 0
    held_out: Annotated[float, Bounds(0, 1, open_low=True, open_high=True)] = 0.1
    calibration_steps: settings.Levels = 4
    calibration: Annotated[str, CALIBRATIONS] = "float"
    calibration_samples: Annotated[int | None, COUNT] = None
    calibration_augment: bool = False
    noise_start: Count = 1
    noise_every: Count = 1
    fixed_noise: Annotated[float | None, NOISE] = None
    errors: Annotated[str, ERRORS] = "modelled"
    train_limit: Annotated[int | None, Bounds(1, 1e12)] = None
    mean: settings.Mean = (0.0,)
    std: settings.Std = (1.0,)
    weights: str | None = None
    model_sha256: str | None = None
    init: str | None = None
    teacher: str | None = None
    device: settings.DeviceName = "auto"
    precision: settings.Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if ":" in self.model and (self.width, self.pooling) != (1.0, "average"):
            raise DataError("width and pooling are those of the user's network", node=self.model)
        if ":" not in self.model and self.weights is not None:
            raise DataError(
                "weights go with a network of the user's",
                node=self.model,
                allowed='model="FILE.py:FACTORY"',
            )
        if self.warm_up >= self.epochs or (self.warm_up and self.schedule == "onecycle"):
            raise DataError(
                "warm_up is a part of the epochs, and not one of onecycle",
                node="training",
                found=f"warm_up = {self.warm_up}, epochs = {self.epochs}, {self.schedule}",
            )
        if self.errors == "own" and self.activation not in IF_ACTIVATIONS:
            raise DataError(
                'errors = "own" are those of IF neurons',
                node=self.activation,
                allowed=f"activation = {' or '.join(IF_ACTIVATIONS)}",
            )
        if self.calibration_augment and self.calibration == "integer":
            raise DataError(
                "changed samples do not lie on the grid that an integer network reads",
                node="calibration_augment",
                remedy='calibration = "float"',
            )
