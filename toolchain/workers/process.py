"""A worker process of this machine, as the process that starts it sees it.

It has one thread for all libraries, and listens on no network. Unlike `multiprocessing` it does not
import the user's script again, which so needs no guard.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from threading import Lock
from typing import Any

from toolchain.errors import BackendRunError

DEATHS = 3
"""Times that the worker of one part may die before the part counts as failed."""
THREADS = ("OMP", "OPENBLAS", "MKL")


class WorkerProcess:
    """A process that computes one part at a time, started again when it dies."""

    def __init__(self) -> None:
        self._closed = False
        self._turn = Lock()
        self._start()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            **{f"{library}_NUM_THREADS": "1" for library in THREADS},
            "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "toolchain.workers.serve", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output belongs to the command
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        self._work: bytes | None = None

    def compute(self, work: bytes, part: Any) -> Any:
        """The result of a part; `work` is a pickled `Work`. Calls take turns.

        Raises
        ------
        BackendRunError
            If the process dies `DEATHS` times.
        """
        with self._turn:
            return self._computed(work, part)

    def _computed(self, work: bytes, part: Any) -> Any:
        for _ in range(DEATHS):
            try:
                self._connection.send((None if self._work is work else work, part))
                self._work = work
                result, error = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                status = self._process.wait()
                if self._closed:
                    break
                self._start()
                continue
            if error is not None:
                raise error
            return result
        raise BackendRunError(
            f"a worker process ended {DEATHS} times at the same part",
            found=f"signal {-status}" if status < 0 else f"exit code {status}",
            remedy="fewer jobs= need less memory",
        )

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._closed = True
        self._process.kill()
        self._process.wait()
        self._connection.close()
