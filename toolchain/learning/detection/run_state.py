"""What a detector's training run is made of between two epochs; `training.state_file` keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from toolchain.learning.data import BoxDataset
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.training.optimizer import optimizer_state, restore_optimizer
from toolchain.learning.training.state_file import part_of, read_state, write_state

EMA_RAMP = 50
"""Steps over which the average's memory grows to its full length."""


@dataclass
class DetectorRunState:
    """A detector in training.

    Attributes
    ----------
    averaged:
        Exponential moving average of all its tensors.
    best, best_epoch:
        Averaged tensors of the epoch chosen so far, counted from 1.
    epoch, steps:
        Epochs and optimizer steps done.
    history:
        One entry per epoch.
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    averaged: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    epoch: int
    steps: int
    history: list[dict[str, float]]

    @torch.no_grad()
    def average(self, keep: float) -> None:
        """Take the present tensors into the average."""
        self.steps += 1
        now = min(keep, self.steps / (self.steps + EMA_RAMP))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - now)
            else:
                self.averaged[name].copy_(value)

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Record an epoch; it becomes the best if its "selection" is at least as high.

        An epoch without a selection becomes the best where none has one.
        """
        self.history.append(metrics)
        self.epoch += 1
        chosen = [h["selection"] for h in self.history if "selection" in h]
        if not chosen or metrics.get("selection", -1.0) >= max(chosen):
            self.best = {k: v.clone() for k, v in self.averaged.items()}
            self.best_epoch = self.epoch


def save_state(
    config: DetectorConfig, folder: Path, run: DetectorRunState, data: BoxDataset
) -> None:
    """Write the state."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"averaged/{k}": v for k, v in run.averaged.items()}
    tensors |= {f"best/{k}": v for k, v in run.best.items()}
    buffers, optimizer = optimizer_state(run.optimizer, run.scheduler)
    tensors |= buffers
    state = {
        "config": config.as_dict(),
        "optimizer": optimizer,
        "data_sha256": data.sha256,
        "epoch": run.epoch,
        "steps": run.steps,
        "best_epoch": run.best_epoch,
        "history": run.history,
    }
    write_state(folder, tensors, state)


def resume(
    config: DetectorConfig,
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    data: BoxDataset,
) -> DetectorRunState:
    """The run found in `folder`, or a new one.

    Raises
    ------
    CheckpointError
        If the state is damaged, or belongs to a run with other settings or data.
    """
    found = read_state(folder, config, data.sha256)
    if found is None:
        averaged = {k: v.clone() for k, v in model.state_dict().items()}
        return DetectorRunState(model, optimizer, scheduler, averaged, {}, 0, 0, 0, [])
    state, tensors = found
    model.load_state_dict(part_of(tensors, "model"))
    restore_optimizer(optimizer, scheduler, part_of(tensors, "optimizer"), state["optimizer"])
    device = next(model.parameters()).device
    averaged = {k: v.to(device) for k, v in part_of(tensors, "averaged").items()}
    return DetectorRunState(
        model,
        optimizer,
        scheduler,
        averaged,
        part_of(tensors, "best"),
        state["best_epoch"],
        state["epoch"],
        state["steps"],
        state["history"],
    )
