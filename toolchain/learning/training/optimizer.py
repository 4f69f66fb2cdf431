"""Optimizers and learning rates by torch, and what both are between two epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from toolchain.learning.training.config import TrainConfig

STEPS_AT = (0.5, 0.75)
"""Shares of a run after which the step schedule divides the learning rate by ten (He et al., 2016,
for CIFAR-10)."""
BETA_2 = 0.999
"""Of AdamW; torch's default."""


@dataclass
class Descent:
    """An optimizer with its learning rate.

    Attributes
    ----------
    every:
        Steps from one change of the rate to the next.
    """

    optimizer: Optimizer
    scheduler: LRScheduler
    every: int = 1

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, batch: int) -> None:
        """Update from the gradients of batch number `batch` of the epoch, counted from 0."""
        self.optimizer.step()
        if (batch + 1) % self.every == 0:
            self.scheduler.step()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by `optimizer/PARAMETER/NAME`, and the rest as JSON."""
        state = self.optimizer.state_dict()
        tensors = {
            f"optimizer/{index}/{name}": value
            for index, values in state["state"].items()
            for name, value in values.items()
        }
        return tensors, {"groups": state["param_groups"], "scheduler": self.scheduler.state_dict()}

    def restore(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Inverse of `state`; `tensors` are named without `optimizer/`.

        Buffers get the memory order of their parameter, so that sums round as in an unbroken run.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition("/")
            like = parameters[int(index)]
            same = value.shape == like.shape and name != "step"  # AdamW counts steps on the CPU
            kept = torch.empty_like(like, requires_grad=False).copy_(value) if same else value
            state.setdefault(int(index), {})[name] = kept
        self.optimizer.load_state_dict({"state": state, "param_groups": list(rest["groups"])})
        self.scheduler.load_state_dict(dict(rest["scheduler"]))


def descent_of(config: TrainConfig, model: nn.Module, batches: int) -> Descent:
    """An optimizer of all parameters and its rate by `config`, for `batches` steps per epoch."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adamw":
        betas = (config.momentum, BETA_2)
        optimizer: Optimizer = AdamW(model.parameters(), rate, betas, weight_decay=decay)
    else:
        optimizer = SGD(model.parameters(), rate, momentum=config.momentum, weight_decay=decay)
    every = batches if config.schedule == "epoch-cosine" else 1
    per_epoch = batches // every
    total, warm_up = config.epochs * per_epoch, config.warm_up * per_epoch
    if config.schedule == "onecycle":
        peak = config.learning_rate
        scheduler: LRScheduler = OneCycleLR(
            optimizer, peak, total_steps=total, cycle_momentum=False
        )
        return Descent(optimizer, scheduler, every)
    if config.schedule == "step":
        ends = [share * total - warm_up for share in STEPS_AT]
        scheduler = LambdaLR(optimizer, lambda step: 0.1 ** sum(step >= end for end in ends))
    else:
        scheduler = CosineAnnealingLR(optimizer, total - warm_up)
    if warm_up:
        rise = LinearLR(optimizer, 1 / warm_up, total_iters=warm_up - 1)
        scheduler = SequentialLR(optimizer, [rise, scheduler], [warm_up])
    return Descent(optimizer, scheduler, every)
