"""Everything that decides a detector's training run, saved next to its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from toolchain.errors import DataError
from toolchain.learning.detection.augment import AUGMENTATIONS
from toolchain.learning.models import POOLINGS
from toolchain.learning.training.config import ACTIVATION_NAMES
from toolchain.learning.training.device import DEVICES, PRECISIONS
from toolchain.learning.training.settings import (
    COUNT,
    LEARNING,
    Bounds,
    check_bounds,
    check_choices,
    typed_settings,
)

BOUNDS = {
    **LEARNING,
    "stride": Bounds(1, 1024),
    "input_size": Bounds(1, 1 << 14),
    "average": Bounds(0, 1, open_high=True),
    "validate_every": COUNT,
}
CHOICES = {
    "activation": ACTIVATION_NAMES,
    "augment": AUGMENTATIONS,
    "pooling": POOLINGS,
    "device": DEVICES,
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class DetectorConfig:
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
        As for classifiers; CQReLU has no threshold of its own.
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
    stride: int = 16
    width: float = 0.25
    pooling: str = "max"
    input_size: tuple[int, ...] = (240, 320)
    activation: str = "cqrelu"
    levels: int = 4
    initial_threshold: float = 4.0
    epochs: int = 300
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    warm_up: int = 3
    average: float = 0.99
    augment: tuple[str, ...] = AUGMENTATIONS
    fixed_noise: float = 0.05
    validate_every: int = 10
    seed: int = 0
    mean: tuple[float, ...] = (128 / 255,)
    std: tuple[float, ...] = (0.25,)
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_bounds(self, BOUNDS)
        if len(self.input_size) != 2:
            raise DataError(
                "input_size is a height and a width", node="training", found=self.input_size
            )
        check_choices(self, CHOICES)

    @property
    def outputs(self) -> int:
        """How many maps the head gives."""
        return 1 if self.head == "plain" else 2

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorConfig:
        """Inverse of `as_dict`; an unknown field or a wrong type is a CheckpointError."""
        return typed_settings(cls, values)
