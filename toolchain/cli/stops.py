"""How a command ends before its time: Ctrl-C, a scheduler's SIGTERM, and streams that are closed.

SIGTERM and SIGHUP raise a KeyboardInterrupt as Ctrl-C does, so that all that is cleaned up then
is cleaned up for them as well.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from toolchain.errors import OutputError

BY_SIGNAL = 128
"""Added to a signal's number this is the exit code, as shells have it: 130 Ctrl-C, 143 SIGTERM."""
KEPT_NOTHING = "nothing half-written is left; repeat the command to begin again"


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end; `number` is which."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


def listen() -> None:
    """From now on SIGTERM and SIGHUP raise Stopped in this process, unless they are ignored."""
    here = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != here:  # a forked child dies of it as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """What `kept` says is shown if the command is stopped inside the `with` block."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (kept(),)
        raise


def kept_epochs(folder: Path) -> str:
    """What a training run that is stopped leaves, and how to go on."""
    if any(folder.glob("last.*")):
        return f"finished epochs are kept in {folder}; repeat the command to go on behind them"
    return "no epoch was finished; repeat the command to begin again"


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """Say what is kept and end at once; threads that still compute are not waited for."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    told = stop.args[0] if stop.args else KEPT_NOTHING
    try:
        sys.stderr.write(f"\ninterrupted ({signal.Signals(number).name}): {told}\n")
        sys.stderr.flush()
        sys.stdout.flush()
    finally:
        os._exit(BY_SIGNAL + number)


def check_streams() -> None:
    """Give closed streams a place to go; raises OutputError if that is standard output.

    Else the next file that is opened would take their numbers, and be written over by messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends
    if sys.stdout is None:
        raise OutputError("standard output is closed: > /dev/null runs in silence")


def silence_output() -> None:
    """Let what is still buffered for standard output go nowhere: its reader or disk is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
