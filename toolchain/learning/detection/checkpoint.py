"""Detectors' checkpoints: the two files of `training.checkpoint`, with the detector's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.errors import CheckpointError
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.models.detector import build_detector
from toolchain.learning.training.checkpoint import (
    activation_factory,
    read_checkpoint,
    rebuilt,
    save_checkpoint,
)
from toolchain.program.input_quantizer import InputQuantizer

DETECTION = "detection"
CHANNELS, PIXEL_MAX = 3, 255


@dataclass(frozen=True)
class DetectorCheckpoint:
    """A trained detector with all that is needed to rebuild and feed it."""

    config: DetectorConfig
    model: nn.Module
    class_names: tuple[str, ...]
    history: list[dict[str, float]]
    epoch: int
    tensors_sha256: str
    data_sha256: str | None

    @property
    def spec(self) -> DetectorSpec:
        """What has to be known to read its maps."""
        return DetectorSpec(self.config.stride, self.class_names, self.config.outputs)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(3, H, W)."""
        return (CHANNELS, *self.config.input_size)

    def quantizer(self, bits: int = 8) -> InputQuantizer:
        """The input quantizer that its pixels and normalisation call for."""
        return quantizer_of(self.config, bits)


def quantizer_of(config: DetectorConfig, bits: int = 8) -> InputQuantizer:
    """The input quantizer for pixels with a detector's normalisation."""
    return InputQuantizer.for_interval(
        (CHANNELS, *config.input_size),
        0.0,
        1.0,
        bits=bits,
        mean=config.mean,
        std=config.std,
        levels=PIXEL_MAX,
    )


def make_detector(config: DetectorConfig, num_classes: int) -> nn.Module:
    """The untrained detector a configuration describes, initialised from its seed.

    Raises
    ------
    CheckpointError, DataError
        If there is no such part, or the input size does not fit the stride.
    """
    activation = activation_factory(config.activation, config.levels, config.initial_threshold)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_detector(
            (config.backbone, config.neck, config.head),
            (CHANNELS, *config.input_size),
            num_classes,
            activation,
            stride=config.stride,
            width=config.width,
            pooling=config.pooling,
        )


def save_detector(folder: Path, info: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files."""
    save_checkpoint(folder, {"task": DETECTION, **info}, tensors)


def is_detector(folder: Path) -> bool:
    """Whether a checkpoint folder holds a detector.

    Raises
    ------
    CheckpointError
        As `read_checkpoint`.
    """
    return read_checkpoint(folder)[0].task == DETECTION


def load_detector(folder: Path) -> DetectorCheckpoint:
    """Read a detector's checkpoint and rebuild its network, in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the version is unknown, it is a classifier's, or the
        tensors do not fit.
    """
    info, model_file = read_checkpoint(folder)
    if info.task != DETECTION:
        raise CheckpointError(
            "this is not a detector's checkpoint",
            node=str(folder),
            remedy="`spikeport detector train` makes one",
        )
    config = DetectorConfig.from_dict(info.config)
    model = rebuilt(lambda: make_detector(config, len(info.class_names)), model_file)
    return DetectorCheckpoint(
        config=config,
        model=model,
        class_names=info.class_names,
        history=info.history,
        epoch=info.epoch,
        tensors_sha256=info.tensors_sha256,
        data_sha256=info.data_sha256,
    )
