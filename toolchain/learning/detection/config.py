"""Everything that decides a detector's training run, saved next to its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from toolchain.errors import DataError
from toolchain.learning.detection.augment import AUGMENTATIONS
from toolchain.learning.training import settings
from toolchain.learning.training.settings import NOISE, Bounds, Count, Settings


@dataclass(frozen=True)
class DetectorConfig(Settings):
    """Settings of a run; the defaults train in well under an hour on two cores.

    Attributes
    ----------
    data:
        A source of images with boxes; its train split trains, and its val split, where there is
        one, chooses the epoch that is kept.
    backbone, neck, head, stride, width, pooling:
        The network, see `models.detector`; `width` scales its channels.
    input_size:
        (height, width) in pixels that images are scaled to fit into.
    activation, levels, initial_threshold:
        As for classifiers; `initial_threshold` is not for CQReLU.
    learning_rate, weight_decay, warm_up:
        AdamW's peak rate, its decay of the weights (not of biases, BatchNorm and thresholds), and
        the epochs it takes to get there; then half a cosine to 0.
    average:
        Share of the averaged weights that a step keeps, in the end (EMA).
    augment:
        Names of `augment.AUGMENTATIONS`.
    fixed_noise:
        NQ: sigma of every layer is this times its threshold.
    validate_every:
        Epochs from one validation to the next.
    mean, std:
        Normalisation before input quantization, one per channel or one for all.
    """

    data: str
    backbone: str = "resnet18"
    neck: str = "spp"
    head: str = "decoupled"
    stride: Annotated[int, Bounds(1, 1024)] = 16
    width: settings.Width = 0.25
    pooling: settings.Pooling = "max"
    input_size: Annotated[tuple[int, ...], Bounds(1, 1 << 14)] = (240, 320)
    activation: settings.Activation = "cqrelu"
    levels: settings.Levels = 4
    initial_threshold: settings.Threshold = 4.0
    epochs: Count = 300
    batch_size: Count = 16
    learning_rate: settings.LearningRate = 3e-3
    weight_decay: settings.WeightDecay = 0.02
    warm_up: settings.WarmUp = 3
    average: Annotated[float, Bounds(0, 1, open_high=True)] = 0.99
    augment: Annotated[tuple[str, ...], AUGMENTATIONS] = AUGMENTATIONS
    fixed_noise: Annotated[float, NOISE] = 0.05
    validate_every: Count = 10
    seed: settings.Seed = 0
    mean: settings.Mean = (128 / 255,)
    std: settings.Std = (0.25,)
    device: settings.DeviceName = "auto"
    precision: settings.Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.input_size) != 2:
            raise DataError(
                "input_size is a height and a width", node="training", found=self.input_size
            )

    @property
    def outputs(self) -> int:
        """How many maps the head gives."""
        return 1 if self.head == "plain" else 2
