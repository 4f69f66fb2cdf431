"""What a training run is made of between two epochs; `state_file` keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from toolchain.learning.data import Dataset
from toolchain.learning.training.checkpoint import save_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.optimizer import Descent, optimizer_state, restore_optimizer
from toolchain.learning.training.state_file import part_of, read_state, write_state


@dataclass
class RunState:
    """A network in training.

    Attributes
    ----------
    descent:
        The optimizer with its learning rate.
    best, best_epoch:
        Tensors of the epoch chosen so far, counted from 1.
    epoch:
        Epochs done.
    history:
        One entry per epoch.
    """

    model: nn.Module
    descent: Descent
    best: dict[str, Tensor]
    best_epoch: int
    epoch: int
    history: list[dict[str, float]]

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Record an epoch; it becomes the best if its "selection" is at least as high."""
        self.history.append(metrics)
        self.epoch += 1
        if metrics["selection"] >= max(h["selection"] for h in self.history):
            self.best = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.best_epoch = self.epoch


def save_run(config: TrainConfig, folder: Path, run: RunState, data: Dataset) -> None:
    """Write the state, then the checkpoint of the best epoch."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in run.best.items()}
    buffers, optimizer = optimizer_state(run.descent.optimizer, run.descent.scheduler)
    tensors |= buffers
    state = {
        "config": config.as_dict(),
        "data_sha256": data.sha256,
        "optimizer": optimizer,
        "epoch": run.epoch,
        "best_epoch": run.best_epoch,
        "history": run.history,
    }
    write_state(folder, tensors, state)
    info = {
        "config": config.as_dict(),
        "sample_shape": list(data.sample_shape),
        "pixel_max": data.pixel_max,
        "value_range": list(data.value_range),
        "class_names": list(data.class_names),
        "data_sha256": data.sha256,
        "epoch": run.best_epoch,
        "history": run.history,
    }
    save_checkpoint(folder, info, run.best)


def resume(
    config: TrainConfig, folder: Path, model: nn.Module, batches: int, data_sha256: str
) -> RunState:
    """The run found in `folder`, or a new one; an epoch has `batches` steps.

    Raises
    ------
    CheckpointError
        If the state is damaged, or belongs to a run with other settings or data.
    """
    found = read_state(folder, config, data_sha256)
    if found is None:
        return RunState(model, Descent(config, model, batches), {}, 0, 0, [])
    state, tensors = found
    model.load_state_dict(part_of(tensors, "model"))
    descent = Descent(config, model, batches)
    restore_optimizer(
        descent.optimizer, descent.scheduler, part_of(tensors, "optimizer"), state["optimizer"]
    )
    return RunState(
        model,
        descent,
        part_of(tensors, "best"),
        state["best_epoch"],
        state["epoch"],
        state["history"],
    )
