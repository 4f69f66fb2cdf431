"""What a training run is made of between two epochs, and the file it is kept in.

The state lies in one file, `last.safetensors`, replaced atomically after each epoch: a killed run
loses at most the epoch it was in. All random numbers of epoch e come from (seed, e), so no
generator state needs to be kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from toolchain.data import Dataset
from toolchain.errors import CheckpointError
from toolchain.files import atomic_write
from toolchain.training.checkpoint import save_checkpoint
from toolchain.training.config import TrainConfig

STATE_FILE = "last.safetensors"


@dataclass
class RunState:
    """A network in training.

    Attributes
    ----------
    momentum:
        SGD's buffers by parameter name.
    best, best_epoch:
        Tensors of the epoch chosen so far, counted from 1.
    epoch:
        Epochs done.
    history:
        One entry an epoch.
    """

    model: nn.Module
    momentum: dict[str, Tensor]
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
    tensors |= {f"momentum/{k}": v for k, v in run.momentum.items()}
    tensors |= {f"best/{k}": v for k, v in run.best.items()}
    state = {
        "config": config.as_dict(),
        "epoch": run.epoch,
        "best_epoch": run.best_epoch,
        "history": run.history,
    }
    packed = save({k: v.contiguous() for k, v in tensors.items()}, {"state": json.dumps(state)})
    atomic_write(folder / STATE_FILE, packed)
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


def resume(config: TrainConfig, folder: Path, model: nn.Module) -> RunState:
    """The run found in `folder`, or a new one.

    Raises
    ------
    CheckpointError
        If the state is damaged, or belongs to a run with other settings.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return RunState(model, {}, {}, 0, 0, [])
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError("damaged training state", node=str(path), found=error) from error
    wanted = config.as_dict()
    different = [k for k in wanted if state["config"].get(k) != wanted[k]]
    if different:
        raise CheckpointError(
            "the folder holds a run with other settings",
            node=str(folder),
            found="; ".join(f"{k}={state['config'].get(k)}" for k in different),
            allowed="; ".join(f"{k}={wanted[k]}" for k in different),
            remedy="choose another --out, or repeat the run's own settings to continue it",
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model/"))
    device = next(model.parameters()).device
    return RunState(
        model,
        {k: v.to(device) for k, v in part("momentum/").items()},
        part("best/"),
        state["best_epoch"],
        state["epoch"],
        state["history"],
    )
