"""Storage of results in one SQLite file; each is written as soon as it is measured."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from math import inf
from pathlib import Path

from toolchain.documents import as_error, typed
from toolchain.errors import OutputError
from toolchain.sweep.grid import Point
from toolchain.sweep.measure import Result

VERSION = 2
"""SQLite's user_version of these files; those of version 1 have no `max_spike`."""
_POINT = [f.name for f in fields(Point)]
_RESULT = [f.name for f in fields(Result) if f.name not in ("key", "point")]
_COLUMNS = ["key", *_POINT, *_RESULT]
_TYPES = {
    "key": "TEXT PRIMARY KEY",
    **dict.fromkeys(("run", "neuron", "program_hash", "error"), "TEXT NOT NULL"),
    **dict.fromkeys(("synops", "seconds"), "REAL NOT NULL"),
}


class Store:
    """The store in the file at `path`, which is created if it does not exist.

    Raises
    ------
    OutputError
        If the file cannot be opened, or is no store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        columns = ", ".join(f"{c} {_TYPES.get(c, 'INTEGER NOT NULL')}" for c in _COLUMNS)
        with self._opened() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 1 and tables:
                database.execute("ALTER TABLE results ADD COLUMN max_spike INTEGER DEFAULT 1")
            elif version != VERSION and tables:
                raise OutputError(
                    "is not a sweep of this version", node=str(path), found=version, allowed=VERSION
                )
            database.execute(f"CREATE TABLE IF NOT EXISTS results ({columns})")
            database.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with (
            as_error(OutputError, "is not a sweep that can be written", str(self._path)),
            closing(sqlite3.connect(self._path)) as database,
            database,
        ):
            yield database

    def add(self, result: Result) -> None:
        """Write a result, replacing an earlier one of the same point."""
        values = [result.key, *(getattr(result.point, name) for name in _POINT)]
        values += [getattr(result, name) for name in _RESULT]
        marks = ", ".join("?" * len(values))
        with self._opened() as database:
            database.execute(
                f"INSERT OR REPLACE INTO results ({', '.join(_COLUMNS)}) VALUES ({marks})", values
            )

    def done(self) -> set[str]:
        """Keys of all stored results."""
        with self._opened() as database:
            return {key for (key,) in database.execute("SELECT key FROM results")}

    def results(self, keys: Iterable[str] | None = None) -> list[Result]:
        """All results, or those with these keys, in the order of the grid."""
        with self._opened() as database:
            rows = database.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM results "
                "ORDER BY run, neuron, steps, weight_bits, max_spike"
            ).fetchall()
            wanted = None if keys is None else set(keys)
            return [_result(row) for row in rows if wanted is None or row[0] in wanted]


def _result(row: tuple[object, ...]) -> Result:
    """The result in a row; raises ValueError for wrong types or values."""
    by_name = dict(zip(_COLUMNS, row, strict=True))
    point = {name: by_name[name] for name in _POINT}
    rest = {name: by_name[name] for name in _RESULT}
    result = typed(Result, {"key": by_name["key"], "point": point, **rest})
    numbers = (result.correct, result.total, result.synops, result.latency, result.cores)
    if not all(0 <= n < inf for n in numbers) or result.correct > result.total:
        raise ValueError(f"a result of {numbers}")
    return result
