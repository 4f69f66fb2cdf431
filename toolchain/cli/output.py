"""What commands print: tables and lines for people, one JSON object for `--json`.

Progress goes to standard error: bars on a terminal, plain lines elsewhere. Results go to
standard output.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

import toolchain

START_SECONDS = 1.0
"""After which a task that has shown nothing says that it goes on, in plain lines."""
LINE_SECONDS = 5.0
"""Shortest time between two plain progress lines of one task."""
PLAIN_WIDTH = 110
"""Width of tables where there is no terminal."""


class Task(Protocol):
    """One thing whose progress is shown."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` is finished."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`, which ends all commands alike."""
        raise BrokenPipeError


class Output:
    """Prints for one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._out = _Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty())
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        log = logging.getLogger(toolchain.__name__)
        log.handlers[:] = [_Logged(self)]
        log.setLevel(logging.INFO)

    def say(self, text: str, style: str = "") -> None:
        """A line for people; nothing with `--json`."""
        if not self.as_json:
            self._out.print(escape(text), style=style)

    def progress_line(self, text: str) -> None:
        """A line about what is going on, on standard error; nothing with `--json`."""
        if not self.as_json:
            self._err.print(escape(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
        """A table for people; the first column is left-aligned, and no cell is cut short."""
        if self.as_json:
            return
        table = Table(title=title, title_justify="left", title_style="bold")
        for index, column in enumerate(columns):
            if index == 0:
                table.add_column(column, no_wrap=True)
            else:
                table.add_column(column, justify="right", overflow="fold")
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row))
        self._out.print(table)

    def result(self, value: dict[str, Any]) -> None:
        """The machine-readable result; printed with `--json` only."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")

    @contextmanager
    def progress(self, what: str) -> Iterator[Task]:
        """Show progress of `what` inside the `with` block."""
        if self.as_json:
            yield _Silent()
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with RichProgress(*columns, console=self._err) as bars:
                yield _Bar(bars, what)
        else:
            lines = _Lines(self, what)
            timer = Timer(START_SECONDS, lines.started)
            timer.daemon = True
            timer.start()
            try:
                yield lines
            finally:
                timer.cancel()


class _Logged(logging.Handler):
    """Shows what the toolchain logs among the progress of a command."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.progress_line(record.getMessage())


class _Silent:
    def update(self, done: int, total: int, note: str = "") -> None:
        """Show nothing."""


class _Bar:
    def __init__(self, bars: RichProgress, what: str) -> None:
        self._bars = bars
        self._id = bars.add_task(what, total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        self._bars.update(self._id, completed=done, total=total, note=note)


class _Lines:
    def __init__(self, output: Output, what: str) -> None:
        self._output = output
        self._what = what
        self._last = time.monotonic()
        self._shown = -1
        self._first: tuple[float, int] | None = None
        """When the first report came, and how far it was: a resumed task does not start at 0."""

    def started(self) -> None:
        """Say that it goes on, if nothing was said yet."""
        if self._shown < 0:
            self._output.progress_line(f"{self._what}: started")

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._first is None:
            self._first = (time.monotonic(), done)
        due = time.monotonic() - self._last >= LINE_SECONDS or done == total
        if due and done != self._shown:
            self._last, self._shown = time.monotonic(), done
            tail = f"  {note}" if note else ""
            if self._first is not None and self._first[1] < done < total:
                since, at = self._first
                left = (time.monotonic() - since) * (total - done) / (done - at)
                tail += f"  {timedelta(seconds=round(left))} left"
            self._output.progress_line(f"{self._what}: {done}/{total}{tail}")


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with two decimals."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"
