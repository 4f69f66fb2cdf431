"""SGD and its learning rate by torch, and what both are between two epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
)

from toolchain.learning.training.config import TrainConfig


def _warmed_cosine(optimizer: Optimizer, total: int, warm_up: int) -> LRScheduler:
    """`warm_up` equal rises to the peak, then half a cosine to 0 over the rest of `total`."""
    cosine = CosineAnnealingLR(optimizer, total - warm_up)
    if not warm_up:
        return cosine
    rise = LinearLR(optimizer, 1 / warm_up, total_iters=warm_up - 1)
    return SequentialLR(optimizer, [rise, cosine], [warm_up])


def _one_cycle(optimizer: Optimizer, total: int, warm_up: int) -> LRScheduler:
    peak = float(optimizer.param_groups[0]["lr"])
    return OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)


_Make = Callable[[Optimizer, int, int], LRScheduler]
_SCHEDULES: dict[str, tuple[_Make, bool]] = {
    "cosine": (_warmed_cosine, False),
    "epoch-cosine": (_warmed_cosine, True),
    "onecycle": (_one_cycle, False),
}
"""What makes each of `config.SCHEDULES`, and whether it moves once per epoch or once per step."""


class Descent:
    """SGD over all parameters, with its learning rate over `batches` steps per epoch."""

    def __init__(self, config: TrainConfig, model: nn.Module, batches: int) -> None:
        self.optimizer = SGD(
            model.parameters(),
            config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        make, by_epoch = _SCHEDULES[config.schedule]
        self._every = batches if by_epoch else 1
        per_epoch = batches // self._every
        self.scheduler = make(self.optimizer, config.epochs * per_epoch, config.warm_up * per_epoch)

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, batch: int) -> None:
        """Update from the gradients of batch number `batch` of the epoch, counted from 0."""
        self.optimizer.step()
        if (batch + 1) % self._every == 0:
            self.scheduler.step()


def optimizer_state(
    optimizer: Optimizer, scheduler: LRScheduler
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by `optimizer/PARAMETER/NAME`, and the rest as JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer/{index}/{name}": value
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, {"groups": state["param_groups"], "scheduler": scheduler.state_dict()}


def restore_optimizer(
    optimizer: Optimizer,
    scheduler: LRScheduler,
    tensors: Mapping[str, Tensor],
    rest: Mapping[str, Any],
) -> None:
    """Inverse of `optimizer_state`; `tensors` are named without `optimizer/`.

    Buffers get the memory order of their parameter, so that sums round as in an unbroken run.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        like = parameters[int(index)]
        same = value.shape == like.shape
        kept = torch.empty_like(like, requires_grad=False).copy_(value) if same else value
        state.setdefault(int(index), {})[name] = kept
    optimizer.load_state_dict({"state": state, "param_groups": list(rest["groups"])})
    scheduler.load_state_dict(dict(rest["scheduler"]))
