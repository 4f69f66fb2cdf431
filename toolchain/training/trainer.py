"""The training loop: seeded by epoch, so that a resumed run repeats an uninterrupted one.

The state of a run lies in one file, `last.safetensors`, replaced atomically after each epoch:
a killed run loses at most the epoch it was in. All random numbers of epoch e come from
(seed, e), so no generator state needs to be kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from toolchain.activations import Mode
from toolchain.data import Dataset, hold_out, open_split
from toolchain.errors import CheckpointError
from toolchain.files import atomic_write, make_folder
from toolchain.training.checkpoint import Checkpoint, load_checkpoint, make_model, save_checkpoint
from toolchain.training.config import TrainConfig
from toolchain.training.evaluate import accuracy, logits, normalised
from toolchain.training.noise import update_sigma

STATE_FILE = "last.safetensors"
Progress = Callable[[int, int, dict[str, float] | None], None]
"""Called with (epoch, fraction of it done in percent, metrics at its end or None)."""


@dataclass
class _Run:
    model: nn.Module
    momentum: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    epoch: int
    history: list[dict[str, float]]


def train(config: TrainConfig, folder: Path, progress: Progress | None = None) -> Checkpoint:
    """Train as `config` says and leave a checkpoint in `folder`; continue a run found there.

    The epoch kept is the best on the held-out split: by the accuracy of the spiking network at
    `calibration_steps` for IF-type activations, of the quantized network for CQReLU. The test
    split is not touched.

    Raises
    ------
    DataError, CheckpointError, OutputError
        Bad source, a folder that holds a run of other settings, or one that cannot be written.
    """
    make_folder(folder)
    data = open_split(config.data, "train")
    if config.train_limit is not None:
        data = _subset(data, config.train_limit, config.seed)
    rest, held = hold_out(data, config.held_out, config.seed)
    num_classes = len(data.class_names)
    model = make_model(config, data.sample_shape, num_classes)
    run = _resume(config, folder, model)
    if run.epoch:
        # The run may have been killed between its state and its checkpoint.
        _save(config, folder, run, data)
    x, y = normalised(rest, config.mean, config.std), torch.from_numpy(rest.labels)
    held_x = normalised(held, config.mean, config.std)
    for epoch in range(run.epoch, config.epochs):
        loss = _one_epoch(config, run, x, y, epoch, progress)
        sigmas = update_sigma(model, held_x, config.calibration_steps)
        metrics = {
            "epoch": epoch + 1,
            "loss": loss,
            **_held_out_metrics(config, model, held, held_x),
        }
        metrics.update({f"sigma/{name}": value for name, value in sigmas.items()})
        run.history.append(metrics)
        run.epoch = epoch + 1
        if metrics["selection"] >= max(h["selection"] for h in run.history):
            run.best = {k: v.clone() for k, v in model.state_dict().items()}
            run.best_epoch = epoch + 1
        _save(config, folder, run, data)
        if progress:
            progress(epoch, 100, metrics)
    return load_checkpoint(folder)


def _subset(data: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` samples drawn by the seed, in their order; sources may be sorted by class."""
    if count >= len(data):
        return data
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    return data.take(np.sort(chosen), f"{data.name}, {count} of {len(data)}")


def _held_out_metrics(
    config: TrainConfig, model: nn.Module, held: Dataset, x: Tensor
) -> dict[str, float]:
    quantized = accuracy(logits(model, x, Mode.QUANTIZED), held.labels)
    if config.activation == "cqrelu":
        return {"held_out_quantized": quantized, "selection": quantized}
    steps = config.calibration_steps
    spiking = accuracy(logits(model, x, Mode.SPIKING, steps), held.labels)
    return {"held_out_quantized": quantized, "held_out_spiking": spiking, "selection": spiking}


def _one_epoch(
    config: TrainConfig, run: _Run, x: Tensor, y: Tensor, epoch: int, progress: Progress | None
) -> float:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    torch.manual_seed(config.seed * 1_000_003 + epoch + 500_000)
    order = torch.randperm(len(x), generator=generator)
    num_batches = math.ceil(len(x) / config.batch_size)
    run.model.train()
    total = 0.0
    for index in range(num_batches):
        rows = order[index * config.batch_size : (index + 1) * config.batch_size]
        done = (epoch + index / num_batches) / config.epochs
        rate = 0.5 * config.learning_rate * (1 + math.cos(math.pi * done))
        loss = cross_entropy(run.model(x[rows]), y[rows])
        run.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        _sgd(config, run, rate)
        total += float(loss.detach()) * len(rows)
        if progress and index % 8 == 0:
            progress(epoch, 100 * index // num_batches, None)
    return total / len(x)


@torch.no_grad()
def _sgd(config: TrainConfig, run: _Run, rate: float) -> None:
    """torch.optim.SGD's update, its buffers kept by parameter name so that they can be saved."""
    for name, parameter in run.model.named_parameters():
        if parameter.grad is None:
            continue
        gradient = parameter.grad + config.weight_decay * parameter
        if name in run.momentum:
            run.momentum[name].mul_(config.momentum).add_(gradient)
        else:
            run.momentum[name] = gradient.clone()
        parameter.sub_(rate * run.momentum[name])


def _save(config: TrainConfig, folder: Path, run: _Run, data: Dataset) -> None:
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
    real = data.real()
    interval = (0.0, 1.0) if data.pixel_max is not None else (float(real.min()), float(real.max()))
    info = {
        "config": config.as_dict(),
        "sample_shape": list(data.sample_shape),
        "pixel_max": data.pixel_max,
        "value_range": list(interval),
        "class_names": list(data.class_names),
        "epoch": run.best_epoch,
        "history": run.history,
    }
    save_checkpoint(folder, info, run.best)


def _resume(config: TrainConfig, folder: Path, model: nn.Module) -> _Run:
    path = folder / STATE_FILE
    if not path.is_file():
        return _Run(model, {}, {}, 0, 0, [])
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
    return _Run(
        model,
        part("momentum/"),
        part("best/"),
        state["best_epoch"],
        state["epoch"],
        state["history"],
    )
