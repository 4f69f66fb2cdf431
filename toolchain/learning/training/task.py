"""What differs between the kinds of networks that are trained; `trainer` does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from toolchain.learning.data.dataset import Samples
from toolchain.learning.training.checkpoint import TrainedModel
from toolchain.learning.training.device import choose_device, laid_out
from toolchain.learning.training.optimizer import Descent
from toolchain.learning.training.ranks import ranks
from toolchain.learning.training.settings import Settings

Kept = TypeVar("Kept", bound=TrainedModel[Any])


class Task(ABC, Generic[Kept]):
    """A network with the data it is trained on; made without writing anything.

    Attributes
    ----------
    load:
        Reads the checkpoint in a folder.
    model:
        The network, on its device.
    data:
        All data of the run, with what is held out; its hash tells it from other runs.
    samples:
        Those that it is trained on, as they are stored, (N, ...).
    memory:
        Share of the averaged weights that a step keeps, in the end (EMA); they are then what is
        measured and kept. None if the weights are kept as they are.
    longest:
        Longer gradients are shortened to this norm; None for never.
    ranks:
        The processes that train together.
    partly_used:
        Whether a forward may leave parameters unused.

    Raises
    ------
    DataError, CheckpointError
        If the source cannot be trained on, or the settings do not fit it.
    """

    load: Callable[[Path], Kept]
    model: nn.Module
    data: Samples
    samples: Tensor
    memory: float | None = None
    longest: float | None = None
    partly_used: bool = False

    def __init__(self, config: Settings) -> None:
        self.config: Settings = config
        self.device = choose_device(config.device, config.precision)
        self.ranks = ranks()

    @abstractmethod
    def descent(self, batches: int) -> Descent:
        """The optimizer and its learning rate, for `batches` steps per epoch."""

    @cached_property
    def network(self) -> nn.Module:
        """What is called in training: the model, or what joins its gradients over processes."""
        return self.ranks.parallel(self.model, partly_used=self.partly_used)

    @abstractmethod
    def batch(self, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor, Any]:
        """Normalised samples float32 (n, ...), changed by `rng`, and what they should give."""

    def outputs(self, x: Tensor) -> Any:
        """What the network returns in training."""
        x = laid_out(x.to(self.device.device), self.model)
        with self.device.autocast():
            return self.network(x)

    @abstractmethod
    def loss(self, outputs: Any, truth: Any) -> tuple[Tensor, dict[str, int]]:
        """Mean loss of a batch, and what is counted in it; the log has its share of samples."""

    @abstractmethod
    def measure(self, epoch: int, tensors: Mapping[str, Tensor]) -> dict[str, float]:
        """What is measured on held-out data after `epoch`, counted from 0.

        Its "selection" chooses the epoch that is kept. `tensors` are the weights as they would be.
        """

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What `checkpoint.json` says of the network and its input."""

    @abstractmethod
    def answers(self, model: nn.Module) -> list[Tensor]:
        """Outputs for held-out samples, (N, ...) each."""
