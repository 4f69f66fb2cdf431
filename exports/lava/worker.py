"""The interpreter that runs Lava for one job; leads the process group of all Lava processes.

Lava hides a model's traceback and then hangs, so each Lava process writes its own to the job's
folder, where the supervisor sees it and ends the run.
"""

from __future__ import annotations

import secrets
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from exports.lava.job import DIGEST, Job
from exports.lava.process_recorder import ProcessRecorder
from exports.netx import read_net
from hw_models import lava_compat
from toolchain.program.int_program import IntProgram
from toolchain.recording import LayerRecorder, Mode


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
            job.report_error(traceback.format_exc())
            raise

    module.target_fn = target


def _list_processes(job: Job) -> None:
    """Write down every Lava process as it is started, for the supervisor to watch."""
    from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing

    infrastructure: Any = MultiProcessing
    original: Callable[..., Any] = infrastructure.build_actor

    def build_actor(self: Any, *args: Any, **kwargs: Any) -> Any:
        actor = original(self, *args, **kwargs)
        with job.processes.open("a") as file:
            file.write(f"{actor.pid}\n")
        return actor

    infrastructure.build_actor = build_actor


def _recorders(job: Job, program: IntProgram) -> dict[str, ProcessRecorder]:
    before: dict[str, np.ndarray] = {}
    if job.digests.is_file():
        with np.load(job.digests, allow_pickle=False) as file:
            before = {name.removesuffix(DIGEST): file[name] for name in file.files}
    steps = program.schedule.num_steps
    return {
        p.name: ProcessRecorder(
            LayerRecorder(p, program.schedule, Mode(job.plan.mode), before.get(p.name)),
            job.record(index),
            job.num_samples,
            job.plan.models.batch,
            steps,
            job.progress if p is program.populations[-1] else None,
        )
        for index, p in enumerate(program.populations)
    }


def run(job: Job) -> None:
    """Build the network, run all steps, stop."""
    lava_compat.prepare()
    _report_failures(job)
    _list_processes(job)
    from lava.magma.core.run_conditions import RunSteps

    from exports.lava.network import build
    from hw_models.run_config import SimCfg

    program = read_net(job.net)
    recorders = _recorders(job, program)
    plan = job.plan
    first, num_steps = build(
        program, job.inputs, job.num_samples, recorders, plan.models, plan.cuts
    )
    first.run(condition=RunSteps(num_steps=num_steps), run_cfg=SimCfg(plan.models.tag))
    job.ran.write_text("ran")
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
            job.report_error(text)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
