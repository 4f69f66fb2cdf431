"""Detectors' checkpoints: the two files of `training.checkpoint`, with the detector's settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.models.detector import build_detector
from toolchain.learning.training.checkpoint import (
    DETECTION,
    TrainedModel,
    activation_factory,
    read_checkpoint,
)

CHANNELS, PIXEL_MAX, PIXELS = 3, 255, (0.0, 1.0)


class DetectorCheckpoint(TrainedModel[DetectorConfig]):
    """A trained detector: module, configuration, classes, and the input it was trained on."""

    @property
    def spec(self) -> DetectorSpec:
        """What has to be known to read its maps."""
        return DetectorSpec(self.config.stride, self.class_names, self.config.outputs)

    def provenance(self) -> dict[str, Any]:
        """What a converted program keeps of it, with what its maps mean."""
        return {**super().provenance(), "detector": self.spec.describe()}


def make_detector(config: DetectorConfig, num_classes: int) -> nn.Module:
    """The untrained detector a configuration describes, initialised from its seed.

    Raises
    ------
    DataError
        If there is no such part, or the input size does not fit the stride.
    """
    activation = activation_factory(config)
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


def load_detector(folder: Path) -> DetectorCheckpoint:
    """Read a detector's checkpoint and rebuild its network, in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the version is unknown, it is a classifier's, or the
        tensors do not fit.
    """
    info, file = read_checkpoint(folder, DETECTION)
    config = DetectorConfig.from_dict(info.config)
    shape = (CHANNELS, *config.input_size)
    info = replace(info, sample_shape=shape, pixel_max=PIXEL_MAX, value_range=PIXELS)
    return DetectorCheckpoint.of(
        info, config, lambda: make_detector(config, len(info.class_names)), file
    )
