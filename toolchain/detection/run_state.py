"""What a detector's training run is made of between two epochs, and the file it is kept in.

One file, `last.safetensors`, replaced atomically after each epoch: a killed run loses at most the
epoch it was in. All random numbers of epoch e come from (seed, e).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from toolchain.detection.config import DetectorConfig
from toolchain.errors import CheckpointError
from toolchain.files import atomic_write

STATE_FILE = "last.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
EMA_RAMP = 50
"""Steps over which the average's memory grows to its full length."""


@dataclass
class RunState:
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
        One entry an epoch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
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


def save_state(config: DetectorConfig, folder: Path, run: RunState) -> None:
    """Write the state."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    tensors |= {f"averaged/{k}": v for k, v in run.averaged.items()}
    tensors |= {f"best/{k}": v for k, v in run.best.items()}
    for name, parameter in run.model.named_parameters():
        kept = run.optimizer.state[parameter]
        tensors |= {f"{what}/{name}": kept[what] for what in _MOMENTS if what in kept}
    state = {
        "config": config.as_dict(),
        "epoch": run.epoch,
        "steps": run.steps,
        "best_epoch": run.best_epoch,
        "history": run.history,
    }
    packed = save({k: v.contiguous() for k, v in tensors.items()}, {"state": json.dumps(state)})
    atomic_write(folder / STATE_FILE, packed)


def resume(
    config: DetectorConfig, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> RunState:
    """The run found in `folder`, or a new one.

    Raises
    ------
    CheckpointError
        If the state is damaged, or belongs to a run with other settings.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        averaged = {k: v.clone() for k, v in model.state_dict().items()}
        return RunState(model, optimizer, averaged, {}, 0, 0, 0, [])
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
        start = f"{prefix}/"
        return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

    model.load_state_dict(part("model"))
    moments = {what: part(what) for what in _MOMENTS}
    for name, parameter in model.named_parameters():
        if name in moments["step"]:
            device = parameter.device
            optimizer.state[parameter] = {
                what: values[name] if what == "step" else values[name].to(device)
                for what, values in moments.items()
            }
    device = next(model.parameters()).device
    averaged = {k: v.to(device) for k, v in part("averaged").items()}
    return RunState(
        model,
        optimizer,
        averaged,
        part("best"),
        state["best_epoch"],
        state["epoch"],
        state["steps"],
        state["history"],
    )
