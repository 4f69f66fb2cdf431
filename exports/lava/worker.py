"""The interpreter that runs Lava for one job and leads the group of all Lava processes.

Lava hides a model's traceback and then hangs, so each Lava process reports its failure in the job's
folder, where the supervisor sees it and ends the run. A failure may be the lack of a file
descriptor, which a report needs too, so one is reserved.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import signal
import sys
from collections.abc import Callable
from functools import partial
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

from exports.lava.failure import Failure
from exports.lava.job import Job
from exports.lava.process_recorder import ProcessRecorder
from exports.lava.resources import Needs, provide
from exports.netx import read_net
from hw_models import lava_compat
from toolchain.program.int_program import IntProgram
from toolchain.recording import LayerRecorder, Mode


def _name_shared_memory(job: Job) -> None:
    """Give every shared memory segment of this run its prefix."""

    def name() -> str:
        return f"/{job.shared_memory_prefix}{secrets.token_hex(4)}"

    module: Any = shared_memory
    module._make_filename = name


def _stay_in_folder(job: Job) -> None:
    """Let the server of shared memory listen in the folder, by a relative name.

    The name of a socket has at most 107 characters (unix(7)), and a long TMPDIR may be longer.
    """
    os.chdir(job.folder)
    this: Any = multiprocessing.current_process()
    this._config["tempdir"] = "."


class Reporter:
    """Reports the exception of this process, or of one forked from it; called once in each."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def __call__(self, error: BaseException) -> None:
        """Write the report, unless the original failure has already been reported."""
        with contextlib.suppress(OSError):
            os.close(self._spare)
        if not self._job.errors():
            self._job.report(Failure.of(error))


def _report_failures(report: Reporter) -> None:
    """Wrap the function that every Lava process starts with."""
    from lava.magma.runtime import runtime

    module: Any = runtime
    original: Callable[..., None] = module.target_fn

    def target(*args: Any, **kwargs: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            original(*args, **kwargs)
        except BaseException as error:
            report(error)
            raise

    module.target_fn = target


def _check_needs(num_steps: int) -> None:
    """Check the needs of the run before its first process starts."""
    from lava.magma.runtime.runtime import Runtime

    runtime: Any = Runtime
    original: Callable[..., None] = runtime.initialize

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        provide(Needs.of(self._executable, num_steps))
        original(self, *args, **kwargs)

    runtime.initialize = initialize


def _list_processes(job: Job) -> None:
    """Write the id of every Lava process when it is started, for the supervisor."""
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
    steps = program.schedule.num_steps
    return {
        p.name: ProcessRecorder(
            partial(LayerRecorder, p, program.schedule, Mode(job.plan.mode)),
            partial(job.record, index),
            job.num_samples,
            job.plan.chunk,
            job.plan.models.batch,
            steps,
            job.progress if p is program.populations[-1] else None,
        )
        for index, p in enumerate(program.populations)
    }


def run(job: Job, report: Reporter) -> None:
    """Build the network, run all steps, and stop."""
    lava_compat.prepare()
    _report_failures(report)
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
    _check_needs(num_steps)
    first.run(condition=RunSteps(num_steps=num_steps), run_cfg=SimCfg(plan.models.tag))
    job.ran.write_text("ran")
    first.stop()
    job.done.write_text("done")


def main() -> int:
    """Entry point: `python -m exports.lava.worker FOLDER`."""
    job = Job.load(Path(sys.argv[1]))
    report = Reporter(job)
    _name_shared_memory(job)
    _stay_in_folder(job)
    try:
        run(job, report)
    except BaseException as error:  # noqa: BLE001 - whatever it is goes into the report
        report(error)
        sys.stderr.flush()
        # A normal exit of the interpreter would wait for its children.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
