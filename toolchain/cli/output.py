"""Output of commands: tables and lines for people, one JSON object for `--json`.

All text for a terminal passes here: nothing in it is read as markup, and characters that a terminal
would act upon are shown as escapes. Progress goes to standard error: bars on a terminal, plain
lines elsewhere. Results go to standard output.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from textwrap import TextWrapper, wrap
from threading import Timer
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.table import Column, Table
from rich.text import Text

from toolchain.text import visible

START_SECONDS = 1.0
"""Seconds without output after which a task prints a plain line that it is running."""
LINE_SECONDS = 5.0
"""Shortest time between two plain progress lines of one task, in seconds."""
PLAIN_WIDTH = 110
"""Width of tables without a terminal, in characters."""
BAR_WIDTH = 20
PROSE = 28
"""Cells with more characters are prose: left-aligned, and wrapped."""
LEAST_PROSE = 20
"""Fewest characters per line of prose."""
WHOLE = 48
"""Characters that stay on one line if rows are paragraphs."""
_NUMBER = re.compile(r"[-+]?\d|-?$")


_LOGS = tuple(map(logging.getLogger, ("spikeport", "toolchain", "hw_models", "exports")))


def choose_level(level: int) -> None:
    """Show messages from this level of `logging` on, besides results."""
    for log in _LOGS:
        log.setLevel(level)


def _shows_progress() -> bool:
    return _LOGS[0].isEnabledFor(logging.INFO)


class Task(Protocol):
    """A task whose progress is shown."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` units are finished."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the error to `main`, which ends all commands in the same way."""
        raise BrokenPipeError


class Output:
    """Output of one command: text, tables and progress, or one JSON object."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._out = _Console(highlight=False, width=width, soft_wrap=not sys.stdout.isatty())
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        for log in _LOGS:
            log.handlers[:] = [_Logged(self)]
        if _LOGS[0].level == logging.NOTSET:
            choose_level(logging.INFO)

    def say(self, text: str, style: str = "") -> None:
        """Print a line for people; nothing with `--json`."""
        if not self.as_json:
            self._out.print(Text(visible(text), style))

    def progress_line(self, text: str) -> None:
        """Print a line about progress on standard error; nothing with `--json`."""
        if not self.as_json and _shows_progress():
            self._err.print(Text(visible(text)))

    def logged(self, text: str) -> None:
        """Print a log line of the toolchain on standard error; nothing with `--json`."""
        if not self.as_json:
            self._err.print(Text(visible(text)))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
        """Print a table for people; no cell is cut and no number is broken.

        If it is wider than the terminal, every row becomes a list.

        Parameters
        ----------
        rows:
            Rows of cells; a tuple is a cell of several lines.
        """
        if self.as_json:
            return
        cells = [[_lines(cell) for cell in row] for row in rows]
        table = Table(show_header=any(columns))
        narrowest = 1
        for index, column in enumerate(columns):
            lines = [line for row in cells for line in row[index].split("\n")]
            widest = max(map(cell_len, lines), default=0)
            words = max((len(word) for word in column.split()), default=0)
            prose = index > 0 and widest > PROSE
            least = max(LEAST_PROSE if prose else widest, words)
            narrowest += least + len("│  ")
            numbers = index > 0 and all(map(_NUMBER.match, lines))
            table.add_column(
                Text("\n".join(wrap(column, max(widest, words)))),
                justify="right" if numbers and not prose else "left",
                overflow="fold",
                min_width=least,
                no_wrap=not prose,
            )
        for row in cells:
            table.add_row(*map(Text, row))
        if narrowest > self._out.width and self._out.is_terminal:
            self._list(columns, cells, title)
            return
        self.say(title, "bold")
        self._out.print(table, width=max(narrowest, self._out.width))

    def _list(self, columns: Sequence[str], cells: list[list[str]], title: str) -> None:
        """Print rows as paragraphs: the first cell, then the others with their columns' names."""
        self.say(title, "bold")
        for row in cells:
            first, *rest = (cell.replace("\n", ", ") for cell in row)
            told = [
                f"{c} {cell}".strip() for c, cell in zip(columns[1:], rest, strict=True) if cell
            ]
            kept = (t.replace(" ", "\xa0") if len(t) <= WHOLE else t for t in told)
            paragraph = TextWrapper(
                self._out.width,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for line in paragraph.wrap(f"{first}: {'; '.join(kept)}"):
                self.say(line.replace("\xa0", " "))

    def result(self, value: dict[str, Any]) -> None:
        """Print the machine-readable result, with `--json` only."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")

    @contextmanager
    def progress(self, what: str) -> Iterator[Task]:
        """Show progress of `what` inside the `with` block."""
        if self.as_json or not _shows_progress():
            yield _Silent()
        elif sys.stderr.isatty():
            # On a narrow terminal the description is cut and the note wrapped, but no number.
            columns = (
                _Shortened("{task.description}", markup=False, table_column=Column()),
                BarColumn(BAR_WIDTH, table_column=Column(width=BAR_WIDTH)),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[note]}", markup=False, table_column=Column()),
            )
            with RichProgress(*columns, console=self._err, transient=True) as bars:
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


def _lines(cell: object) -> str:
    return "\n".join(map(visible, cell)) if isinstance(cell, tuple) else visible(cell)


class _Shortened(TextColumn):
    """Text in one line that is shortened in favour of the other columns."""

    def render(self, task: RichTask) -> Text:
        """The text, shortened if there is no space."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class _Logged(logging.Handler):
    """Shows log messages of the toolchain between the progress lines of a command."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.logged(record.getMessage())


class _Silent:
    def update(self, done: int, total: int, note: str = "") -> None:
        """Show nothing."""


class _Bar:
    def __init__(self, bars: RichProgress, what: str) -> None:
        self._bars = bars
        self._id = bars.add_task(visible(what), total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        self._bars.update(self._id, completed=done, total=total, note=visible(note))


class _Lines:
    def __init__(self, output: Output, what: str) -> None:
        self._output = output
        self._what = what
        self._last = time.monotonic()
        self._shown = -1
        self._first: tuple[float, int] | None = None
        """Time and state of the first report, since a resumed task does not start at 0."""

    def started(self) -> None:
        """Print that the task is running, if nothing was printed yet."""
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
