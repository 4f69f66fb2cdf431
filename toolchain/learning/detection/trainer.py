"""The detector's training loop: seeded by epoch, so that a resumed run repeats an unbroken one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from toolchain.conversion.frontend.user_module import in_evaluation, output_list
from toolchain.learning.data import BoxDataset, box_splits, open_boxes, parse_source
from toolchain.learning.detection.augment import Truth, augment
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.checkpoint import (
    DetectorCheckpoint,
    load_detector,
    make_detector,
    quantizer_of,
    save_detector,
)
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.detections import Detections, detect, split_maps
from toolchain.learning.detection.loss import detection_loss
from toolchain.learning.detection.run_state import DetectorRunState, resume, save_state
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.training.config_file import write_settings
from toolchain.learning.training.device import Device, choose_device, laid_out
from toolchain.learning.training.failure import check_answers, check_finite, finite_loss
from toolchain.learning.training.inference import normalise
from toolchain.learning.training.noise import set_fixed_sigma
from toolchain.learning.training.run_folder import CONFIG_FILE, LOG_FILE, open_run_folder
from toolchain.learning.training.settings import check_training_source

TRAIN, VALIDATION = "train", "val"
GRADIENT_NORM = 10.0
"""Longer gradients are shortened to this; the first steps of a detector have such."""
EVALUATION_BATCH = 16
Progress = Callable[[int, int, dict[str, float] | None], None]
"""Called with (epoch, percent of it done, metrics at its end or None)."""


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
    check_training_source(config.data)
    device = choose_device(config.device, config.precision)
    size = (config.input_size[0], config.input_size[1])
    data = open_boxes(config.data, size, TRAIN)
    held = _validation(config, size)
    quantizer_of(config)
    model = device.place(make_detector(config, len(data.class_names)))
    open_run_folder(folder, config)
    batches = _Batches(config, data)
    optimizer = _optimizer(config, model)
    scheduler = LambdaLR(optimizer, _share_of_rate(config, len(batches)))
    run = resume(config, folder, model, optimizer, scheduler, data)
    if run.epoch:
        _keep(config, folder, run, data)
    write_settings(config.as_dict(), folder / CONFIG_FILE)
    for epoch in range(run.epoch, config.epochs):
        started = time.monotonic()
        metrics = _one_epoch(config, run, batches, device, epoch, progress)
        last = epoch + 1 == config.epochs
        if held is not None and (last or (epoch + 1) % config.validate_every == 0):
            metrics |= _validate(config, run, held, len(data.class_names))
        check_finite(metrics, epoch)
        run.end_epoch({"epoch": epoch + 1, **metrics})
        save_state(config, folder, run, data)
        _keep(config, folder, run, data)
        line = {**run.history[-1], "seconds": round(time.monotonic() - started, 2)}
        with (folder / LOG_FILE).open("a") as file:
            file.write(json.dumps({**line, "device": device.name}) + "\n")
        if progress:
            progress(epoch, 100, run.history[-1])
    kept = load_detector(folder)
    answered = data if held is None else held
    few = answered.take(slice(0, EVALUATION_BATCH), answered.name)
    check_answers(detector_outputs(kept.model, few, config.mean, config.std), run.history)
    return kept


def _validation(config: DetectorConfig, size: tuple[int, int]) -> BoxDataset | None:
    source = parse_source(config.data)
    if source.split in (None, TRAIN) and VALIDATION in box_splits(source.base):
        return open_boxes(f"{source.base}@{VALIDATION}", size)
    return None


def _optimizer(config: DetectorConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; only weights of convolutions decay."""
    parameters = dict(model.named_parameters())
    decays = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decays, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def _share_of_rate(config: DetectorConfig, batches: int) -> Callable[[int], float]:
    """Share of the peak rate by the steps done: a linear rise, then half a cosine to 0."""
    warm = min(config.warm_up / config.epochs, 0.5)

    def share(step: int) -> float:
        done = step / (config.epochs * batches)
        if done < warm:
            return (done + 1e-3) / (warm + 1e-3)
        return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))

    return share


class _Batches:
    """Augmented, normalised batches; all random numbers of a batch come from (seed, epoch)."""

    def __init__(self, config: DetectorConfig, data: BoxDataset) -> None:
        self.config = config
        self.samples = torch.from_numpy(data.samples)
        corners = torch.from_numpy(data.placed())
        labels = torch.from_numpy(data.boxes.label)
        image = torch.from_numpy(data.boxes.image)
        self.truth: list[Truth] = [
            (corners[image == i], labels[image == i]) for i in range(len(data))
        ]

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.config.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, list[Truth]]]:
        """Normalised samples float32 (n, 3, H, W) and boxes, in the epoch's order."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.samples), generator=generator)
        rng = np.random.default_rng((config.seed, epoch))
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            truth = [self.truth[int(row)] for row in rows]
            images, truth = augment(self.samples[rows].float() / 255, truth, config.augment, rng)
            yield normalise(images, config.mean, config.std), truth


def _one_epoch(
    config: DetectorConfig,
    run: DetectorRunState,
    batches: _Batches,
    device: Device,
    epoch: int,
    progress: Progress | None,
) -> dict[str, float]:
    """Mean loss, and the last learning rate."""
    torch.manual_seed(config.seed * 1_000_003 + epoch + 500_000)
    run.model.train()
    total, seen, rate = 0.0, 0, 0.0
    for index, (x, truth) in enumerate(batches.of_epoch(epoch)):
        if config.activation == "nq":
            set_fixed_sigma(run.model, config.fixed_noise)
        placed = laid_out(x.to(device.device), run.model)
        with device.autocast():
            outputs = run.model(placed)
        maps = split_maps([o.float().cpu() for o in output_list(outputs)])
        loss = detection_loss(maps, config.stride, [(c.float(), y) for c, y in truth])
        total += finite_loss(loss, epoch) * len(x)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_NORM)
        rate = float(run.scheduler.get_last_lr()[0])
        run.optimizer.step()
        run.scheduler.step()
        run.average(config.average)
        seen += len(x)
        if progress:
            progress(epoch, 100 * index // len(batches), None)
    return {"loss": total / seen, "learning_rate": rate}


def _spec(config: DetectorConfig, num_classes: int) -> DetectorSpec:
    return DetectorSpec(config.stride, ("",) * num_classes, config.outputs)


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


def _validate(
    config: DetectorConfig, run: DetectorRunState, held: BoxDataset, num_classes: int
) -> dict[str, float]:
    """Average precision with the averaged weights."""
    model = make_detector(config, num_classes)
    model.load_state_dict(run.averaged)
    outputs = detector_outputs(model, held, config.mean, config.std)
    found: Detections = detect(_spec(config, num_classes), outputs, held)
    measured = average_precision(found, held)
    return {
        "held_out_map50": measured.at_half,
        "held_out_map": measured.mean,
        "selection": measured.mean,
    }


def _keep(config: DetectorConfig, folder: Path, run: DetectorRunState, data: BoxDataset) -> None:
    """Write the checkpoint of the best epoch."""
    info = {
        "config": config.as_dict(),
        "class_names": list(data.class_names),
        "data_sha256": data.sha256,
        "epoch": run.best_epoch,
        "history": run.history,
    }
    save_detector(folder, info, {k: v.cpu() for k, v in run.best.items()})
