"""How detectors are trained: by boxes, with averaged weights, the best on a validation split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from toolchain.conversion.frontend.user_module import in_evaluation, output_list
from toolchain.errors import UsageError
from toolchain.learning.data import BoxDataset, box_splits, open_boxes, parse_source
from toolchain.learning.detection.augment import Truth, augment
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.checkpoint import (
    DetectorCheckpoint,
    load_detector,
    make_detector,
)
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.detections import detect, split_maps
from toolchain.learning.detection.loss import detection_loss
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.training.checkpoint import DETECTION, make_quantizer
from toolchain.learning.training.inference import normalise
from toolchain.learning.training.noise import set_fixed_sigma
from toolchain.learning.training.optimizer import Descent
from toolchain.learning.training.ranks import launched
from toolchain.learning.training.settings import check_training_source
from toolchain.learning.training.task import Task
from toolchain.learning.training.trainer import Progress, train_task

TRAIN, VALIDATION = "train", "val"
GRADIENT_NORM = 10.0
"""The first steps of a detector have longer gradients."""
EVALUATION_BATCH = 16


def train_detector(
    config: DetectorConfig, folder: Path, progress: Progress | None = None
) -> DetectorCheckpoint:
    """Train as `config` says and leave a checkpoint in `folder`; continue a run found there.

    The epoch kept is the best by mAP over IoU 0.5 to 0.95 on the validation split, with averaged
    weights; without such a split the last. The test split is not touched.

    Raises
    ------
    DataError, CheckpointError, OutputError
        Bad source, a folder that holds a run of other settings or data, or one that cannot be
        written. Nothing is written before.
    TrainingError
        If the loss becomes no number, or the trained network gives every image the same maps.
    """
    if launched().size > 1:
        raise UsageError(
            "a detector is trained in one process",
            node="training",
            found=f"{launched().size} processes",
            remedy="start it without torchrun",
        )
    return train_task(Detection(config), folder, progress)


class Detection(Task[DetectorCheckpoint]):
    """The training of a detector on boxes and classes; the kept epoch has the best mAP."""

    config: DetectorConfig
    data: BoxDataset
    load = staticmethod(load_detector)
    longest = GRADIENT_NORM

    def __init__(self, config: DetectorConfig) -> None:
        check_training_source(config.data)
        super().__init__(config)
        size = (config.input_size[0], config.input_size[1])
        self.data = data = open_boxes(config.data, size, TRAIN)
        self.held = _validation(config, size)
        make_quantizer(config, data.sample_shape, data.value_range, data.pixel_max)
        self.model = self.device.place(make_detector(config, len(data.class_names)))
        self.samples, self.memory = torch.from_numpy(data.samples), config.average
        corners, labels = torch.from_numpy(data.placed()), torch.from_numpy(data.boxes.label)
        image = torch.from_numpy(data.boxes.image)
        self.truth: list[Truth] = [
            (corners[image == i], labels[image == i]) for i in range(len(data))
        ]

    def descent(self, batches: int) -> Descent:
        """AdamW, where only weights of convolutions decay; a linear rise, then half a cosine."""
        config, parameters = self.config, list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        warm = min(config.warm_up / config.epochs, 0.5)

        def share(step: int) -> float:
            done = step / (config.epochs * batches)
            if done < warm:
                return (done + 1e-3) / (warm + 1e-3)
            return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))

        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        return Descent(optimizer, LambdaLR(optimizer, share))

    def batch(self, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor, list[Truth]]:
        """Augmented images float32 (n, 3, H, W), and their boxes."""
        config, truth = self.config, [self.truth[int(row)] for row in rows]
        images, truth = augment(self.samples[rows].float() / 255, truth, config.augment, rng)
        return normalise(images, config.mean, config.std), truth

    def outputs(self, x: Tensor) -> Any:
        """Its maps; NQ's noise follows the thresholds."""
        if self.config.activation == "nq":
            set_fixed_sigma(self.model, self.config.fixed_noise)
        return super().outputs(x)

    def loss(self, outputs: Any, truth: Sequence[Truth]) -> tuple[Tensor, dict[str, int]]:
        """See `detection_loss`; nothing is counted."""
        maps = split_maps([o.float().cpu() for o in output_list(outputs)])
        return detection_loss(maps, self.config.stride, [(c.float(), y) for c, y in truth]), {}

    def measure(self, epoch: int, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """Average precision on the validation split, in every `validate_every`-th epoch."""
        config, held, names = self.config, self.held, self.data.class_names
        last = epoch + 1 == config.epochs
        if held is None or not (last or (epoch + 1) % config.validate_every == 0):
            return {}
        model = make_detector(config, len(names))
        model.load_state_dict(tensors)
        outputs = detector_outputs(model, held, config.mean, config.std)
        spec = DetectorSpec(config.stride, names, config.outputs)
        measured = average_precision(detect(spec, outputs, held), held)
        return {
            "held_out_map50": measured.at_half,
            "held_out_map": measured.mean,
            "selection": measured.mean,
        }

    def info(self) -> dict[str, Any]:
        """The task's name, all settings and the classes, as `checkpoint.json` contains them."""
        return {
            "task": DETECTION,
            "config": self.config.as_dict(),
            "class_names": list(self.data.class_names),
        }

    def answers(self, model: nn.Module) -> list[Tensor]:
        """Maps of a few images."""
        images = self.data if self.held is None else self.held
        few = images.take(slice(0, EVALUATION_BATCH))
        return detector_outputs(model, few, self.config.mean, self.config.std)


def _validation(config: DetectorConfig, size: tuple[int, int]) -> BoxDataset | None:
    source = parse_source(config.data)
    if source.split in (None, TRAIN) and VALIDATION in box_splits(source.base):
        return open_boxes(f"{source.base}@{VALIDATION}", size)
    return None


@torch.no_grad()
def detector_outputs(
    model: nn.Module, data: BoxDataset, mean: tuple[float, ...], std: tuple[float, ...]
) -> list[Tensor]:
    """What `model` returns for all images, in evaluation mode: (N, ...) each, float32."""
    parts: list[list[Tensor]] = []
    device = next(model.parameters()).device
    with in_evaluation(model):
        for start in range(0, len(data), EVALUATION_BATCH):
            images = torch.from_numpy(data.samples[start : start + EVALUATION_BATCH]).float() / 255
            outputs = model(normalise(images, mean, std).to(device))
            parts.append([o.float().cpu() for o in output_list(outputs)])
    return [torch.cat(of_one) for of_one in zip(*parts, strict=True)]
