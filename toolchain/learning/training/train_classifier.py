"""How classifiers are trained: by labels, and the epoch kept is the best on a held-out split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from toolchain.errors import DataError
from toolchain.int_range import TargetLimits
from toolchain.learning.activations import IF_ACTIVATIONS, NQ, ActivationMode
from toolchain.learning.data import Dataset, hold_out, open_split
from toolchain.learning.data.dataset import choose_samples
from toolchain.learning.data.torch_data import labelled
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
from toolchain.learning.training.device import laid_out
from toolchain.learning.training.inference import (
    accuracy,
    batches,
    logits,
    normalise,
    normalised,
)
from toolchain.learning.training.integer_noise import compare_with_integer
from toolchain.learning.training.noise import (
    SpikingComparison,
    compare_with_spiking,
    set_fixed_sigma,
    set_sigma,
)
from toolchain.learning.training.optimizer import Descent, descent_of
from toolchain.learning.training.own_errors import own_errors
from toolchain.learning.training.own_network import check_classes, is_own, with_hash
from toolchain.learning.training.ranks import joined
from toolchain.learning.training.settings import check_training_source
from toolchain.learning.training.start import start_from
from toolchain.learning.training.task import Task
from toolchain.learning.training.teacher import Teacher, taught
from toolchain.learning.training.trainer import Progress, train_task
from toolchain.user_code import home_of, user_code

Truth = tuple[Tensor, Tensor | None]
"""Labels (n,), and logits (n, K) of a teacher."""
MOST_MEASURED = 256
"""Training samples on which the thresholds of a user's network start."""
HELD_OUT_STREAM = 1
"""Sets random numbers of held-out samples apart from those of training samples."""


def train(
    config: TrainConfig,
    folder: Path,
    progress: Progress | None = None,
    limits: TargetLimits | None = None,
    *,
    data: TorchDataset[Any] | DataLoader[Any] | None = None,
) -> Checkpoint:
    """Train as `config` says and leave a checkpoint in `folder`; continue a run found there.

    The epoch kept is the best on the held-out split: by the accuracy of the spiking network at
    `calibration_steps` for IF-type activations, of the network itself otherwise. The test split
    is not touched. `limits` are those of the target that `calibration = "integer"` converts for.

    A torch Dataset or DataLoader of (sample, label) as `data` takes the place of the source that
    `config.data` names, which is only a name then. It is read once, so that random changes of its
    own are drawn once too.

    In several processes, as torchrun starts them, each takes its share of every batch; the first
    measures and writes. All of them read the data and the folder.

    Raises
    ------
    DataError, CheckpointError, OutputError
        Bad source, a folder that holds a run of other settings or data, or one that cannot be
        written. Nothing is written before.
    TrainingError
        If the loss becomes no number, or the trained network gives every sample the same output.
    """
    given = None if data is None else labelled(data, config.data)
    with joined(config.device):
        task = Classification(with_hash(config), limits, given)
        place = home_of(task.model)
        with place.entered() if place else nullcontext():
            return train_task(task, folder, progress)


class Classification(Task[Checkpoint]):
    """Training by labels; `limits` as in `train`, and `data` in place of `config.data`.

    Of sequences the network gets the means over time, and the spiking networks that it is compared
    with, or whose errors it is trained on, one tensor in each step: what a network converted for
    inputs per step does (docs/EVENTS.md).

    Attributes
    ----------
    frames:
        Steps of a sequence; None of still samples.
    steps:
        Of the spiking networks: those of the sequences, or those that `config` says.
    shape:
        (C, H, W) or (F,) of what the network gets.
    """

    config: TrainConfig
    data: Dataset
    load = staticmethod(load_checkpoint)

    def __init__(
        self,
        config: TrainConfig,
        limits: TargetLimits | None = None,
        data: Dataset | None = None,
    ) -> None:
        super().__init__(config)
        self.partly_used = is_own(config.model)
        if data is None:
            check_training_source(config.data)
            data = open_split(config.data, "train")
        self.frames, self.steps = data.steps, data.steps or config.calibration_steps
        if config.activation == "cqrelu" and self.frames not in (None, config.levels):
            raise DataError(
                "CIF has as many wake steps as trained levels, and gets a tensor in each",
                node=data.name,
                found=f"sequences of {self.frames} tensors, {config.levels} levels",
                remedy=f"levels={self.frames}, or sequences of {config.levels}",
            )
        self.shape = data.sample_shape if self.frames is None else data.sample_shape[1:]
        check_augmentations(config.augment, data.sample_shape, data.pixel_max is not None)
        if config.train_limit is not None:
            data = _subset(data, config.train_limit, config.seed)
        self.data, self.limits = data, limits
        quantizer = make_quantizer(config, self.shape, data.value_range, data.pixel_max)
        self.quantizer = replace(quantizer, per_step=self.frames is not None)
        rest, self.held = hold_out(data, config.held_out, config.seed)
        self.samples, self.labels = torch.from_numpy(rest.samples), torch.from_numpy(rest.labels)
        self.model = self._start(rest)
        if config.calibration == "integer" and limits is None:
            raise DataError("integer calibration needs a target's limits", node="training")
        self.teacher = None
        if config.teacher is not None:
            self.teacher = Teacher(
                Path(config.teacher), config, self.shape, data.class_names, self.device
            )
        self.held_x = normalised(self.held, config.mean, config.std).to(self.device.device)

    def _start(self, samples: Dataset) -> nn.Module:
        """The network on its device, as training begins."""
        config, num_classes = self.config, len(self.data.class_names)
        few = samples.take(choose_samples(len(samples), MOST_MEASURED, config.seed))
        x = self._seen(normalised(few, config.mean, config.std))
        model = make_model(config, self.shape, num_classes, x)
        if config.init is not None:
            start_from(model, Path(config.init), x)
        if not is_own(config.model):
            return self.device.place(model)
        check_classes(model, x[:1], num_classes, config.model)
        # Forwards of others may call `view`, which fails in channels-last order.
        return model.to(self.device.device)

    def outputs(self, x: Tensor) -> Any:
        """What the network returns in training."""
        name = self.config.model
        x, own = x.to(self.device.device), self.config.errors == "own"
        per_step = own and self.frames is not None
        if not per_step:
            x = self._seen(x)
        if not is_own(name):
            x = laid_out(x, self.model)
        guard = user_code("the network fails in training", name) if is_own(name) else nullcontext()
        spiking: AbstractContextManager[None] = nullcontext()
        if own:
            noise = self.config.fixed_noise or 0.0
            spiking = own_errors(self.model, self.steps, per_step=per_step, noise=noise)
        with guard, self.device.autocast(), spiking:
            return self.network(x)

    def descent(self, batches: int) -> Descent:
        """The optimizer and the schedule that the settings name."""
        return descent_of(self.config, self.model, batches)

    def batch(self, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor, Truth]:
        """Augmented samples float32 (n, ...), labels (n,), and the teacher's logits (n, K)."""
        x = self._changed(self.samples[rows], rng)
        taught_by = self.teacher.outputs(self._seen(x)) if self.teacher else None
        return x, (self.labels[rows], taught_by)

    def _seen(self, x: Tensor) -> Tensor:
        """What the network gets of samples: of sequences the mean over the steps."""
        return x if self.frames is None else x.mean(1)

    def _changed(self, samples: Tensor, rng: np.random.Generator) -> Tensor:
        config = self.config
        pixels = augment_pixels(samples, config.augment, rng)
        real = pixels.float() / (self.data.pixel_max or 1)
        real = normalise(real, config.mean, config.std, self.quantizer.channel_axis)
        return augment_normalised(real, config.augment, rng)

    def loss(self, outputs: Tensor, truth: Truth) -> tuple[Tensor, dict[str, int]]:
        """Cross-entropy, shared with a teacher; counted is how many samples were right."""
        y, teacher = truth[0].to(outputs.device), truth[1]
        loss = cross_entropy(outputs.float(), y, label_smoothing=self.config.label_smoothing)
        if teacher is not None:
            loss = taught(loss, outputs.float(), teacher)
        return loss, {"train_accuracy": int((outputs.detach().argmax(1) == y).sum())}

    def measure(self, epoch: int, _: Mapping[str, Tensor]) -> dict[str, float]:
        """Accuracies on held-out samples, and "selection".

        NQ's sigma is set for the next epoch where `config` says so; each layer's is in the result
        as "sigma/LAYER", its measured residual error as "residual_std/LAYER". Both come from the
        held-out samples, changed as in training with `calibration_augment`.
        """
        config, x, labels = self.config, self.held_x, self.held.labels
        if config.activation not in IF_ACTIVATIONS:
            quantized = accuracy(
                logits(self.model, self._seen(x), ActivationMode.QUANTIZED), labels
            )
            return {"held_out_quantized": quantized, "selection": quantized}
        part = slice(0, config.calibration_samples)
        compared = self._compare(x[part])
        whole = compared.quantized
        if len(whole) < len(x):
            whole = logits(self.model, self._seen(x), ActivationMode.QUANTIZED)
        spiking = accuracy(compared.spiking, labels[part])
        if config.calibration_augment:
            rng = np.random.default_rng((config.seed, epoch, HELD_OUT_STREAM))
            changed = self._changed(torch.from_numpy(self.held.samples), rng)
            compared = self._compare(changed.to(x.device)[part])
        metrics = {
            "held_out_quantized": accuracy(whole, labels),
            "held_out_spiking": spiking,
            "selection": spiking,
            **{f"residual_std/{n}": v for n, v in compared.residual_std.items()},
        }
        if config.activation == "nq":
            sigmas = self._update_sigma(compared.residual_std, epoch + 1 - config.noise_start)
            metrics |= {f"sigma/{n}": v for n, v in sigmas.items()}
        return metrics

    def _compare(self, x: Tensor) -> SpikingComparison:
        if self.config.calibration == "integer" and self.limits is not None:
            return compare_with_integer(self.model, x, self.steps, self.quantizer, self.limits)
        per_step = self.frames is not None
        some = batches(x, self.frames or 1)
        return compare_with_spiking(self.model, some, self.steps, per_step=per_step)

    def _update_sigma(self, residual_std: dict[str, float], since_start: int) -> dict[str, float]:
        """Set sigma for the next epoch; returns what is in force by layer."""
        config = self.config
        if config.fixed_noise is not None:
            return set_fixed_sigma(self.model, config.fixed_noise)
        if since_start >= 0 and since_start % config.noise_every == 0:
            return set_sigma(self.model, residual_std)
        return {n: m.sigma.item() for n, m in self.model.named_modules() if isinstance(m, NQ)}

    def info(self) -> dict[str, Any]:
        """All settings, the input's shape and range, and the classes, as in `checkpoint.json`."""
        data = self.data
        return {
            "config": self.config.as_dict(),
            "sample_shape": list(self.shape),
            "pixel_max": data.pixel_max,
            "value_range": list(data.value_range),
            "class_names": list(data.class_names),
            **({} if self.frames is None else {"frames": self.frames}),
        }

    def answers(self, model: nn.Module) -> list[Tensor]:
        """Logits of all held-out samples."""
        return [logits(model, self._seen(self.held_x.cpu()), ActivationMode.QUANTIZED)]


def _subset(data: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` samples drawn by the seed, in their order; sources may be sorted by class."""
    if count >= len(data):
        return data
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    return data.take(np.sort(chosen), f"{data.name}, {count} of {len(data)}")
