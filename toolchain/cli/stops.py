"""How a command ends before its time: Ctrl-C, a scheduler's SIGTERM, and streams that are closed.

SIGTERM and SIGHUP raise a KeyboardInterrupt as Ctrl-C does, so that all that is cleaned up then
is cleaned up for them as well. Before a command begins and after it has finished there is nothing
to clean up, and they end the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from toolchain.errors import OutputError

BY_SIGNAL = 128
"""Added to a signal's number this is the exit code, as shells have it: 130 Ctrl-C, 143 SIGTERM."""
KEPT_NOTHING = "nothing half-written is left; repeat the command to begin again"


FINISHED = "the command had finished"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], Any]
_ANSWERS: dict[int, _Handler] = {}
"""What answers a signal here."""


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end; `number` is which. It may say what is kept."""

    def __init__(self, number: int, *kept: str) -> None:
        self.number = number
        super().__init__(*kept)


def end_at_once(kept: str) -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP end the process where it stands, and `kept` is said.

    This is for before and after a command: an exception would come out of whatever is imported or
    closed just then.
    """
    for number in SIGNALS:
        _answer(number, lambda number, _: leave(Stopped(number, kept)))


def listen() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt in this process, SIGTERM and SIGHUP Stopped."""
    here = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != here:  # a forked child dies of it as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    for number in SIGNALS:
        _answer(number, signal.default_int_handler if number == signal.SIGINT else stop)


def _answer(number: int, handler: _Handler) -> None:
    """Nothing where a signal is ignored, or answered by somebody else."""
    ours = (signal.SIG_DFL, signal.default_int_handler, _ANSWERS.get(number))
    if signal.getsignal(number) in ours:
        _ANSWERS[number] = handler
        signal.signal(number, handler)


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
