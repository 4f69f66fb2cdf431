"""Early end of a command: Ctrl-C, a scheduler's SIGTERM, and closed streams.

SIGTERM and SIGHUP raise a KeyboardInterrupt like Ctrl-C, so that they cause the same
clean-up. Before a command begins and after it has finished there is nothing
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
"""Added to a signal's number, it is the exit code, as in shells: 130 Ctrl-C, 143 SIGTERM."""
KEPT_NOTHING = "nothing half-written is left; repeat the command to begin again"


FINISHED = "the command had finished"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], Any]
_ANSWERS: dict[int, _Handler] = {}
"""Handlers of signals that this module has set."""


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end, with its `number`; the text may say what is kept."""

    def __init__(self, number: int, *kept: str) -> None:
        self.number = number
        super().__init__(*kept)


def end_at_once(kept: str) -> None:
    """Make Ctrl-C, SIGTERM and SIGHUP end the process at once, with the message `kept`.

    This is for the time before and after a command: an exception would interrupt imports or
    clean-up.
    """
    for number in SIGNALS:
        _answer(number, lambda number, _: leave(Stopped(number, kept)))


def listen() -> None:
    """Make Ctrl-C raise KeyboardInterrupt in this process, and SIGTERM and SIGHUP raise Stopped."""
    here = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != here:  # a forked child ends as without this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    for number in SIGNALS:
        _answer(number, signal.default_int_handler if number == signal.SIGINT else stop)


def _answer(number: int, handler: _Handler) -> None:
    """Set a handler, unless the signal is ignored or has another handler."""
    ours = (signal.SIG_DFL, signal.default_int_handler, _ANSWERS.get(number))
    if signal.getsignal(number) in ours:
        _ANSWERS[number] = handler
        signal.signal(number, handler)


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Show the result of `kept` if the command is stopped inside the `with` block."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = (kept(),)
        raise


def kept_epochs(folder: Path) -> str:
    """A note on the finished epochs of a stopped training run, and how to continue."""
    if any(folder.glob("last.*")):
        return f"finished epochs are kept in {folder}; repeat the command to go on behind them"
    return "no epoch was finished; repeat the command to begin again"


def leave(stop: KeyboardInterrupt) -> NoReturn:
    """Print what is kept and end at once, without waiting for threads that still compute."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    told = stop.args[0] if stop.args else KEPT_NOTHING
    try:
        sys.stderr.write(f"\ninterrupted ({signal.Signals(number).name}): {told}\n")
        sys.stderr.flush()
        sys.stdout.flush()
    finally:
        os._exit(BY_SIGNAL + number)


def check_streams() -> None:
    """Redirect closed streams; raises OutputError if standard output is closed.

    Otherwise the next file that is opened would get their numbers, and messages would overwrite it.
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
    """Discard the buffer of standard output, whose reader or disk is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
