"""The interpreter that runs Lava for one job; leads the process group of all Lava processes.

Lava hides a model's traceback and then hangs, so each Lava process writes its own to the job's
folder, where the supervisor sees it. A Lava process that dies without a word is noticed here.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection, shared_memory
from pathlib import Path
from typing import Any

from exports.lava.job import Job
from exports.netx import read_net
from hw_models import lava_compat


def _name_shared_memory(job: Job) -> None:
    """Make every shared memory segment of this run carry its prefix."""

    def name() -> str:
        return f"/{job.shared_memory_prefix}{secrets.token_hex(4)}"

    module: Any = shared_memory
    module._make_filename = name


def _report_failures(job: Job) -> None:
    """Wrap the function that every Lava process starts with."""
    from lava.magma.runtime import runtime

    module: Any = runtime
    original: Callable[..., None] = module.target_fn

    def target(*args: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            original(*args, **kwargs)
        except BaseException:
            _write_error(job, traceback.format_exc())
            raise

    module.target_fn = target


def _write_error(job: Job, text: str) -> None:
    partial = job.path / f"partial-{os.getpid()}"
    partial.write_text(text)
    partial.rename(job.path / f"error-{os.getpid()}.txt")


def _watch_processes(job: Job, finished: threading.Event) -> None:
    """Report a Lava process that ends before the run does."""
    children: dict[Any, Any] = {c.sentinel: c for c in multiprocessing.active_children()}
    while children and not finished.is_set():
        for sentinel in connection.wait(list(children), timeout=0.1):
            child = children.pop(sentinel)
            if not finished.is_set() and child.exitcode:
                _write_error(
                    job, f"Lava process {child.name} ended with exit code {child.exitcode}\n"
                )


def run(job: Job) -> None:
    """Build the network, run all steps, stop."""
    lava_compat.prepare()
    _report_failures(job)
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    from exports.lava.network import build

    program = read_net(job.net)
    traces = {p.name: job.trace(i) for i, p in enumerate(program.populations)}
    first, num_steps = build(program, job.inputs, job.num_samples, traces)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    first.create_runtime(run_cfg=config)
    finished = threading.Event()
    watcher = threading.Thread(target=_watch_processes, args=(job, finished), daemon=True)
    watcher.start()
    first.run(condition=RunSteps(num_steps=num_steps), run_cfg=config)
    finished.set()
    watcher.join()
    first.stop()
    job.done.write_text("done")


def main() -> int:
    """Entry point: `python -m exports.lava.worker FOLDER`."""
    job = Job.load(Path(sys.argv[1]))
    _name_shared_memory(job)
    try:
        run(job)
    except BaseException:  # noqa: BLE001 - whatever it is goes into the report
        text = traceback.format_exc()
        if not job.errors():
            _write_error(job, text)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
