"""The process between the caller and Lava, which ends a run with its caller or at its time limit.

It runs outside the caller's process group, with a pipe from the caller as standard input. When
the caller has written the job's files, it starts the interpreter that runs Lava as leader of
another process group and ends that group when

- a process reports its failure, a Lava process ends before the run does, or the interpreter ends,
- the time limit passes,
- the pipe closes: the caller has died, or wants the run to stop.

In any case, the shared memory of the run is then removed; if the caller has died, the job's
folder too. It uses the standard library only, so that it starts quickly.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from exports.lava import failure
from exports.lava.failure import Failure
from exports.lava.job import (
    GO,
    PROCESS_FAILED,
    STOPPED,
    TIMED_OUT,
    Job,
    leave_nothing,
    lost_process,
)

POLL_SECONDS = 0.05
GRACE_SECONDS = 0.5
"""Seconds between the end of a process and its report, so that its own traceback comes first."""


def supervise(job: Job) -> int:
    """Run the job's interpreter; returns an exit status."""
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "exports.lava.worker", job.folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "TMPDIR": job.folder},
        )
    deadline = time.monotonic() + job.time_limit
    try:
        job.group.write_text(str(child.pid))
        while True:
            status = child.poll()
            if job.errors() or _lost_a_process(job):
                return PROCESS_FAILED
            if status is not None:
                return status if status >= 0 else 128 - status
            if time.monotonic() > deadline:
                return TIMED_OUT
            readable, _, _ = select.select([sys.stdin.fileno()], [], [], POLL_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                return STOPPED
    finally:
        leave_nothing(job, child.pid)
        child.wait()
        # From here on the number may belong to another group.
        job.group.unlink(missing_ok=True)


def _lost_a_process(job: Job) -> bool:
    """Whether a Lava process has ended too early; if so, writes the reason."""
    lost = lost_process(job)
    if lost is None:
        return False
    time.sleep(GRACE_SECONDS)
    if not job.errors():
        told = f"{lost} before the run was over"
        job.report(Failure.of_text(failure.PROCESS_FAILED, told))
    return True


def main() -> int:
    """Entry point: `python -m exports.lava.supervisor FOLDER`."""
    folder = Path(sys.argv[1])
    if os.read(sys.stdin.fileno(), len(GO)) != GO:
        shutil.rmtree(folder, ignore_errors=True)
        return STOPPED
    job = Job.load(folder)
    try:
        status = supervise(job)
    except Exception as error:  # noqa: BLE001 - whatever it is goes into the report
        job.report(Failure.of(error))
        return PROCESS_FAILED
    if status == STOPPED:
        shutil.rmtree(job.path, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
