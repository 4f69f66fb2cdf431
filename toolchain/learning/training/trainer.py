"""The training loop: seeded by epoch, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from toolchain.learning.training.config_file import write_settings
from toolchain.learning.training.failure import check_answers, check_finite, finite_loss
from toolchain.learning.training.run_folder import CONFIG_FILE, LOG_FILE, open_run_folder
from toolchain.learning.training.run_state import RunState
from toolchain.learning.training.task import Kept, Task

Progress = Callable[[int, int, dict[str, float] | None], None]
"""Called with (epoch, percent of it done, metrics at its end or None)."""


def train_task(task: Task[Kept], folder: Path, progress: Progress | None = None) -> Kept:
    """Train, and leave a checkpoint in `folder`; continue a run found there.

    Raises
    ------
    CheckpointError, OutputError
        If the folder holds a run of other settings or data, or cannot be written. Nothing is
        written before.
    TrainingError
        If the loss becomes no number, or the trained network gives every sample the same output.
    """
    config, report = task.config, progress or (lambda _epoch, _done, _metrics: None)
    open_run_folder(folder, config)
    run = RunState(task, folder)
    if run.epoch:
        # The run may have been killed between its state and its checkpoint.
        run.save()
    write_settings(config.as_dict(), folder / CONFIG_FILE)
    for epoch in range(run.epoch, config.epochs):
        started = time.monotonic()
        metrics = _one_epoch(run, report)
        metrics |= task.measure(epoch, run.tensors)
        check_finite(metrics, epoch)
        run.end_epoch({"epoch": epoch + 1, **metrics})
        # The history leaves out what never repeats.
        taken = {"seconds": round(time.monotonic() - started, 2), "device": task.device.name}
        with (folder / LOG_FILE).open("a") as file:
            file.write(json.dumps({**run.history[-1], **taken, "time": time.time()}) + "\n")
        report(epoch, 100, run.history[-1])
    kept = task.load(folder)
    check_answers(task.answers(kept.model), run.history)
    return kept


def _one_epoch(run: RunState, report: Progress) -> dict[str, float]:
    """Mean loss, shares of what the task counts, and the last learning rate.

    All random numbers come from the seed and the epoch.
    """
    task, epoch, seed = run.task, run.epoch, run.task.config.seed * 1_000_003 + run.epoch
    order = torch.randperm(len(task.samples), generator=torch.Generator().manual_seed(seed))
    rng = np.random.default_rng((task.config.seed, epoch))
    torch.manual_seed(seed + 500_000)
    task.model.train()
    loss_sum, seen, rate = 0.0, 0, 0.0
    counted: dict[str, int] = {}
    for index, rows in enumerate(torch.split(order, task.config.batch_size)):
        x, truth = task.batch(rows, rng)
        loss, counts = task.loss(task.outputs(x), truth)
        loss_sum += finite_loss(loss, epoch) * len(rows)
        task.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = run.descent.rate
        run.step(index)
        counted = {name: counted.get(name, 0) + count for name, count in counts.items()}
        seen += len(rows)
        report(epoch, 100 * index // run.batches, None)
    shares = {name: count / seen for name, count in counted.items()}
    return {"loss": loss_sum / seen, **shares, "learning_rate": rate}
