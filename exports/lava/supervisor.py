"""Stands between the caller and Lava, so that no run outlives its caller or its time.

Started in a session of its own with a pipe from the caller as standard input. It starts the
interpreter that runs Lava as leader of another process group and ends that group when

- a model leaves a traceback, or the interpreter ends,
- the time limit passes,
- the pipe closes: the caller has died, or wants the run to stop.

Whatever happened, shared memory of the run is then removed; where the caller is gone, the job's
folder too. Uses the standard library only, so that it starts at once.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

from exports.lava.job import Job, leave_nothing

POLL_SECONDS = 0.05
TIMED_OUT, STOPPED, MODEL_FAILED = 124, 130, 3
"""Exit statuses, beside the interpreter's own."""


def supervise(job: Job) -> int:
    """Run the job's interpreter; returns an exit status."""
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "exports.lava.worker", job.folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    job.group.write_text(str(child.pid))
    deadline = time.monotonic() + job.time_limit
    try:
        while True:
            status = child.poll()
            if job.errors():
                time.sleep(POLL_SECONDS)
                return MODEL_FAILED
            if status is not None:
                return status if status >= 0 else 128 - status
            if time.monotonic() > deadline:
                return TIMED_OUT
            readable, _, _ = select.select([sys.stdin.fileno()], [], [], POLL_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                return STOPPED
    finally:
        leave_nothing(job)
        child.wait()


def main() -> int:
    """Entry point: `python -m exports.lava.supervisor FOLDER`."""
    job = Job.load(Path(sys.argv[1]))
    status = supervise(job)
    if status == STOPPED:
        shutil.rmtree(job.path, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
