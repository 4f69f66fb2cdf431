"""The training loop: seeded by epoch, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from toolchain.errors import DataError
from toolchain.int_range import TargetLimits
from toolchain.learning.activations import ActivationMode
from toolchain.learning.data import Dataset, hold_out, open_split
from toolchain.learning.training.augment import (
    augment_normalised,
    augment_pixels,
    check_augmentations,
)
from toolchain.learning.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    make_model,
    make_quantizer,
)
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.config_file import write_settings
from toolchain.learning.training.device import Device, choose_device, laid_out
from toolchain.learning.training.failure import check_answers, check_finite, finite_loss
from toolchain.learning.training.held_out import IntegerForm, measure_held_out
from toolchain.learning.training.inference import logits, normalise, normalised
from toolchain.learning.training.run_folder import CONFIG_FILE, LOG_FILE, open_run_folder
from toolchain.learning.training.run_state import RunState, resume, save_run
from toolchain.learning.training.settings import check_training_source

HELD_OUT_STREAM = 1
"""Sets random numbers of held-out samples apart from those of training samples."""
Progress = Callable[[int, int, dict[str, float] | None], None]
"""Called with (epoch, fraction of it done in percent, metrics at its end or None)."""


def train(
    config: TrainConfig,
    folder: Path,
    progress: Progress | None = None,
    limits: TargetLimits | None = None,
) -> Checkpoint:
    """Train as `config` says and leave a checkpoint in `folder`; continue a run found there.

    The epoch kept is the best on the held-out split: by the accuracy of the spiking network at
    `calibration_steps` for IF-type activations, of the network itself otherwise. The test split
    is not touched. `limits` are those of the target that `calibration = "integer"` converts for.

    Raises
    ------
    DataError, CheckpointError, OutputError
        Bad source, a folder that holds a run of other settings or data, or one that cannot be
        written. Nothing is written before.
    TrainingError
        If the loss becomes no number, or the trained network gives every sample the same output.
    """
    check_training_source(config.data)
    device = choose_device(config.device, config.precision)
    data = open_split(config.data, "train")
    make_quantizer(config, data.sample_shape, data.value_range, data.pixel_max)
    check_augmentations(config.augment, data.sample_shape, data.pixel_max is not None)
    if config.train_limit is not None:
        data = _subset(data, config.train_limit, config.seed)
    rest, held = hold_out(data, config.held_out, config.seed)
    model = device.place(make_model(config, data.sample_shape, len(data.class_names)))
    integer_form = _integer_form(config, data, limits)
    open_run_folder(folder, config)
    batches = _Batches(config, rest, device)
    run = resume(config, folder, model, len(batches), data.sha256)
    if run.epoch:
        # The run may have been killed between its state and its checkpoint.
        save_run(config, folder, run, data)
    write_settings(config.as_dict(), folder / CONFIG_FILE)
    held_batches = _Batches(config, held, device)
    held_x = normalised(held, config.mean, config.std).to(device.device)
    for epoch in range(run.epoch, config.epochs):
        started = time.monotonic()
        trained = _one_epoch(config, run, batches, epoch, progress)
        noise_x = held_batches.changed(epoch) if config.calibration_augment else held_x
        measured = measure_held_out(
            config, model, held_x, held.labels, noise_x, epoch + 1, integer_form
        )
        check_finite({**trained, **measured}, epoch)
        run.end_epoch({"epoch": epoch + 1, **trained, **measured})
        save_run(config, folder, run, data)
        _log(folder, run.history[-1], device, time.monotonic() - started)
        if progress:
            progress(epoch, 100, run.history[-1])
    kept = load_checkpoint(folder)
    check_answers([logits(kept.model, held_x.cpu(), ActivationMode.QUANTIZED)], run.history)
    return kept


def _integer_form(
    config: TrainConfig, data: Dataset, limits: TargetLimits | None
) -> IntegerForm | None:
    if config.calibration != "integer":
        return None
    if limits is None:
        raise DataError("integer calibration needs a target's limits", node="training")
    quantizer = make_quantizer(config, data.sample_shape, data.value_range, data.pixel_max)
    return IntegerForm(quantizer, limits)


def _subset(data: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` samples drawn by the seed, in their order; sources may be sorted by class."""
    if count >= len(data):
        return data
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    return data.take(np.sort(chosen), f"{data.name}, {count} of {len(data)}")


def _log(folder: Path, metrics: dict[str, float], device: Device, seconds: float) -> None:
    """Append an epoch with its time, which the history leaves out because it never repeats."""
    line = {**metrics, "seconds": round(seconds, 2), "device": device.name, "time": time.time()}
    with (folder / LOG_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")


class _Batches:
    """Augmented, normalised batches; all random numbers of a batch come from (seed, epoch)."""

    def __init__(self, config: TrainConfig, data: Dataset, device: Device) -> None:
        self.config = config
        self.device = device
        self.pixel_max = data.pixel_max
        self.samples = torch.from_numpy(data.samples)
        self.labels = torch.from_numpy(data.labels)

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.config.batch_size)

    def of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples float32 (n, ...) and labels (n,), in the epoch's order."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.samples), generator=generator)
        rng = np.random.default_rng((config.seed, epoch))
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            x = self._changed(self.samples[rows], rng)
            yield x.to(self.device.device), self.labels[rows].to(self.device.device)

    def changed(self, epoch: int) -> Tensor:
        """All samples in their order, float32 (N, ...), changed as in training."""
        rng = np.random.default_rng((self.config.seed, epoch, HELD_OUT_STREAM))
        return self._changed(self.samples, rng).to(self.device.device)

    def _changed(self, samples: Tensor, rng: np.random.Generator) -> Tensor:
        config = self.config
        real = augment_pixels(samples, config.augment, rng).float() / (self.pixel_max or 1)
        return augment_normalised(normalise(real, config.mean, config.std), config.augment, rng)


def _one_epoch(
    config: TrainConfig,
    run: RunState,
    batches: _Batches,
    epoch: int,
    progress: Progress | None,
) -> dict[str, float]:
    """Mean loss, accuracy on the training batches as they came, and the last learning rate."""
    torch.manual_seed(config.seed * 1_000_003 + epoch + 500_000)
    run.model.train()
    loss_sum, correct, seen, rate = 0.0, 0, 0, 0.0
    for index, (x, y) in enumerate(batches.of_epoch(epoch)):
        with batches.device.autocast():
            outputs = run.model(laid_out(x, run.model))
        loss = cross_entropy(outputs.float(), y, label_smoothing=config.label_smoothing)
        loss_sum += finite_loss(loss, epoch) * len(y)
        run.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = run.descent.rate
        run.descent.step(index)
        correct += int((outputs.detach().argmax(1) == y).sum())
        seen += len(y)
        if progress and index % 8 == 0:
            progress(epoch, 100 * index // len(batches), None)
    return {"loss": loss_sum / seen, "train_accuracy": correct / seen, "learning_rate": rate}
