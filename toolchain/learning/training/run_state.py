"""What a training run is made of between two epochs; `state_file` keeps it."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.learning.training.checkpoint import save_checkpoint
from toolchain.learning.training.state_file import part_of, read_state, write_state
from toolchain.learning.training.task import Task

EMA_RAMP = 50
"""Steps over which the average's memory grows to its full length."""


class RunState:
    """The run found in a folder, or a new one.

    Attributes
    ----------
    descent:
        The optimizer with its learning rate, for `batches` steps per epoch.
    averaged:
        Exponential moving average of all tensors; empty for tasks without.
    best, best_epoch:
        Tensors of the epoch chosen so far, counted from 1.
    epoch:
        Epochs done.
    history:
        One entry per epoch.

    Raises
    ------
    CheckpointError
        If the state is damaged, or belongs to a run with other settings or data.
    """

    def __init__(self, task: Task[Any], folder: Path) -> None:
        self.task, self.folder = task, folder
        self.batches = ceil(len(task.samples) / task.config.batch_size)
        self.averaged: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_epoch = self.epoch = 0
        self.history: list[dict[str, float]] = []
        found = read_state(folder, task.config, task.data.sha256)
        if found is not None:
            task.model.load_state_dict(part_of(found[1], "model"))
        self.descent = task.descent(self.batches)
        if task.memory is not None:
            self.averaged = {k: v.clone() for k, v in task.model.state_dict().items()}
        if found is None:
            return
        state, tensors = found
        self.descent.restore(part_of(tensors, "optimizer"), state["optimizer"])
        for name, value in part_of(tensors, "averaged").items():
            self.averaged[name].copy_(value)
        self.best, self.best_epoch = part_of(tensors, "best"), state["best_epoch"]
        self.epoch, self.history = state["epoch"], state["history"]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What would be kept now."""
        return self.averaged or self.task.model.state_dict()

    @torch.no_grad()
    def step(self, batch: int) -> None:
        """Update from the gradients of batch number `batch` of the epoch, counted from 0."""
        if self.task.longest is not None:
            nn.utils.clip_grad_norm_(self.task.model.parameters(), self.task.longest)
        self.descent.step(batch)
        if self.task.memory is None:
            return
        steps = self.epoch * self.batches + batch + 1
        now = min(self.task.memory, steps / (steps + EMA_RAMP))
        for name, value in self.task.model.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, 1 - now)
            else:
                self.averaged[name].copy_(value)

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Record an epoch and write it; it is the best if its "selection" is at least as high.

        An epoch without a selection becomes the best where none has one.
        """
        self.history.append(metrics)
        self.epoch += 1
        chosen = [h["selection"] for h in self.history if "selection" in h]
        if not chosen or metrics.get("selection", -1.0) >= max(chosen):
            self.best = {k: v.clone() for k, v in self.tensors.items()}
            self.best_epoch = self.epoch
        if self.task.ranks.is_first:
            self.save()

    def save(self) -> None:
        """Write the state, then the checkpoint of the best epoch."""
        model = self.task.model.state_dict()
        parts = {"model": model, "averaged": self.averaged, "best": self.best}
        tensors = {f"{part}/{k}": v for part, held in parts.items() for k, v in held.items()}
        buffers, optimizer = self.descent.state()
        state = {
            "config": self.task.config.as_dict(),
            "data_sha256": self.task.data.sha256,
            "optimizer": optimizer,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        write_state(self.folder, tensors | buffers, state)
        info = {
            **self.task.info(),
            "data_sha256": self.task.data.sha256,
            "epoch": self.best_epoch,
            "history": self.history,
        }
        save_checkpoint(self.folder, info, self.best)
