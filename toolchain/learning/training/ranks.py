"""Training in several processes, as torchrun starts them: each takes its share of every batch.

A batch has as many samples as in one process, so that the settings mean the same. Torch's
DistributedDataParallel takes the mean of the gradients, each weighted by its share. The first
process alone measures and writes; the others get what it found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

_Value = TypeVar("_Value")
LONGEST_WAIT = timedelta(hours=6)
"""Time that processes wait for the first one to measure an epoch."""
STREAM = 2
"""Sets random changes of samples apart from those of held-out samples, whose stream is 1."""
SEEDS_OF_A_RANK = 1 << 40
"""Sets seeds of processes further apart than those of epochs."""


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together.

    Attributes
    ----------
    rank, size:
        Its number, counted from 0, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    @property
    def stream(self) -> tuple[int, ...]:
        """What tells its random changes of samples from those of other processes."""
        return () if self.size == 1 else (STREAM, self.rank)

    @property
    def seed_offset(self) -> int:
        """What tells its seeds from those of other processes."""
        return self.rank * SEEDS_OF_A_RANK

    def share(self, rows: Tensor) -> tuple[Tensor, int]:
        """Its samples of a batch (n,), every `size`-th, and their number.

        A batch of fewer samples than processes gives some of them one that does not count.
        """
        own = rows[self.rank :: self.size]
        return (own, len(own)) if len(own) else (rows[:1], 0)

    def parallel(self, model: nn.Module, *, partly_used: bool) -> nn.Module:
        """The network whose gradients are the mean over all processes.

        `partly_used` says that a forward may leave parameters unused.
        """
        if self.size == 1:
            return model
        return DistributedDataParallel(model, find_unused_parameters=partly_used)

    def added(self, values: dict[str, float]) -> dict[str, float]:
        """The sums over all processes, of values with the same names in each."""
        if self.size == 1:
            return values
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, values)
        return {name: sum(part[name] for part in parts) for name in values}

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def from_first(self, value: _Value) -> _Value:
        """The value that the first process has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]


def ranks() -> Ranks:
    """The place of this process in the group that it has joined, if any."""
    if not dist.is_available() or not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


def launched() -> Ranks:
    """The place that torchrun, or whatever sets its variables, has given this process."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the other processes inside the block, if there are any and the caller has not.

    `device` is the setting: processes on GPUs take one each, and talk by NCCL; others by gloo.
    """
    if launched().size == 1 or dist.is_initialized():
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()
