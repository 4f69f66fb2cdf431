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
    first = task.ranks.is_first
    task.ranks.wait()  # until all have read the folder
    if run.epoch and first:
        # The run may have been killed between its state and its checkpoint.
        run.save()
    if first:
        write_settings(config.as_dict(), folder / CONFIG_FILE)
    for epoch in range(run.epoch, config.epochs):
        started = time.monotonic()
        metrics = _one_epoch(run, report)
        metrics |= _measured(run, epoch)
        check_finite(metrics, epoch)
        run.end_epoch({"epoch": epoch + 1, **metrics})
        if not first:
            continue
        # The history leaves out what never repeats.
        taken: dict[str, float | str] = {
            "seconds": round(time.monotonic() - started, 2),
            "device": task.device.name,
        }
        if task.ranks.size > 1:
            taken["processes"] = task.ranks.size
        with (folder / LOG_FILE).open("a") as file:
            file.write(json.dumps({**run.history[-1], **taken, "time": time.time()}) + "\n")
        report(epoch, 100, run.history[-1])
    task.ranks.wait()  # until the first has written the checkpoint
    kept = task.load(folder)
    check_answers(task.answers(kept.model), run.history)
    return kept


def _measured(run: RunState, epoch: int) -> dict[str, float]:
    """What the first process measures; all get its metrics, and the buffers that it leaves."""
    task = run.task
    found = task.measure(epoch, run.tensors) if task.ranks.is_first else {}
    buffers = dict(task.model.named_buffers())
    for name, value in task.ranks.from_first({k: v.cpu() for k, v in buffers.items()}).items():
        buffers[name].copy_(value)
    return task.ranks.from_first(found)


def _one_epoch(run: RunState, report: Progress) -> dict[str, float]:
    """Mean loss, shares of what the task counts, and the last learning rate.

    All random numbers come from the seed and the epoch.
    """
    task, epoch, seed = run.task, run.epoch, run.task.config.seed * 1_000_003 + run.epoch
    order = torch.randperm(len(task.samples), generator=torch.Generator().manual_seed(seed))
    ranks = task.ranks
    rng = np.random.default_rng((task.config.seed, epoch, *ranks.stream))
    torch.manual_seed(seed + 500_000 + ranks.seed_offset)
    task.model.train()
    loss_sum, seen, rate = 0.0, 0, 0.0
    counted: dict[str, int] = {}
    for index, batch in enumerate(torch.split(order, task.config.batch_size)):
        rows, own = ranks.share(batch)
        x, truth = task.batch(rows, rng)
        loss, counts = task.loss(task.outputs(x), truth)
        loss_sum += finite_loss(loss, epoch) * own
        task.model.zero_grad(set_to_none=True)
        weighted = loss * (own * ranks.size / len(batch))
        weighted.backward()  # type: ignore[no-untyped-call]
        rate = run.descent.rate
        run.step(index)
        counted = {name: counted.get(name, 0) + count * bool(own) for name, count in counts.items()}
        seen += own
        report(epoch, 100 * index // run.batches, None)
    sums = ranks.added({"loss": loss_sum, **counted, "seen": seen})
    shares = {name: value / sums["seen"] for name, value in sums.items() if name != "seen"}
    return {**shares, "learning_rate": rate}
