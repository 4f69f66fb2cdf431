"""What a benchmark measured: tables of text, and how they were made; for the results page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import DataError
from toolchain.files import atomic_write
from toolchain.learning.evaluation.results import made_by
from toolchain.learning.evaluation.schema import MadeBy, check_made

SUFFIX = ".speed.json"
FOLDER = Path(__file__).resolve().parents[1] / "speed"
"""Where benchmarks leave what they measured."""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes
    ----------
    rows:
        Cells as they are printed; the first of each is a name.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """As Markdown."""
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        return [
            f"**{self.title}**",
            "",
            *(f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows)),
            "",
        ]


@dataclass(frozen=True)
class Measurement:
    """One run of a benchmark.

    Attributes
    ----------
    text:
        What was measured, and how to read it.
    made:
        Command, versions and machine, see `document.made_by`.
    """

    title: str
    text: str
    tables: tuple[Table, ...]
    made: MadeBy

    @classmethod
    def publish(
        cls,
        name: str,
        title: str,
        text: str,
        tables: Sequence[Table],
        command: str,
        seconds: float,
        **versions: str,
    ) -> None:
        """Print what a benchmark found, and save it as `name` among the measurements.

        `command` repeats it, `seconds` is the time that it took, `versions` those of packages.
        """
        found = cls(title, text, tuple(tables), made_by(command, seconds, **versions))
        found.save(FOLDER / f"{name}{SUFFIX}")
        print("\n".join(found.lines()))

    def save(self, path: Path) -> None:
        """Write as JSON; the name ends in `SUFFIX`."""
        atomic_write(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Measurement:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If it is damaged.
        """
        with as_error(DataError, "not a saved measurement", str(path)):
            found = typed(cls, parse_json(read_text(path)))
            check_made(found.made)
            return found

    def lines(self) -> list[str]:
        """A part of the results page."""
        tables = [line for table in self.tables for line in table.lines()]
        return [f"## {self.title}", "", self.text, "", *tables]


def find_measurements(folder: Path) -> dict[str, Measurement]:
    """Every measurement below `folder`, by the name of its file, sorted.

    Raises
    ------
    DataError
        If one is damaged.
    """
    files = sorted(folder.rglob(f"*{SUFFIX}"))
    return {file.name.removesuffix(SUFFIX): Measurement.read(file) for file in files}
