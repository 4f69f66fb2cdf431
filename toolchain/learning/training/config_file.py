"""Training settings as a TOML or YAML file, both ways."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tomli_w
import yaml

from toolchain.documents import as_error, read_text
from toolchain.errors import DataError, OutputError
from toolchain.files import atomic_write

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIXES = (".toml", ".yaml", ".yml")
MOST_BYTES = 1 << 20
"""Of a settings file."""
WRITTEN_BY_RUNS = {"data", "seed", "precision"}
"""Some of the names that a file written by a run has all of."""


def read_settings(path: Path) -> dict[str, Any]:
    """The settings a file gives, by field name of `TrainConfig`; those left out are not there.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another kind, or is not a table of settings.
    """
    _check_suffix(path)
    if not path.is_file():
        raise DataError("no such file", node=str(path))
    with as_error(DataError, "not a readable settings file", str(path)):
        text = read_text(path, MOST_BYTES)
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise DataError(
            "a settings file is a table of names and values",
            node=str(path),
            found=type(values).__name__,
        )
    return values


def write_settings(settings: dict[str, Any], path: Path) -> None:
    """Write every setting of a configuration's `as_dict`; `read_settings` gives them back.

    TOML has no null, so fields that are None are left out there, which means the same. A file that
    says the same already stays as it is, with its comments.

    Raises
    ------
    DataError
        If the suffix is neither TOML's nor YAML's.
    OutputError
        If the path cannot be written, or holds something else than a run wrote.
    """
    _check_suffix(path)
    values = {k: v for k, v in settings.items() if v is not None}
    text = _text(values, path)
    if path.is_file() and path.stat().st_size:
        try:
            there = read_settings(path)
        except DataError:
            there = {}
        if _text(there, path) == text:
            return
        if not there.keys() >= WRITTEN_BY_RUNS or _text(there, path) != path.read_text("utf-8"):
            raise OutputError(
                "settings that a run did not write stand there, and are not replaced",
                node=str(path),
                remedy="give another folder=, or move the file",
            )
    atomic_write(path, text.encode())


def _text(values: dict[str, Any], path: Path) -> str:
    return tomli_w.dumps(values) if path.suffix == ".toml" else yaml.safe_dump(values)


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise DataError(
            "a settings file is TOML or YAML",
            node=str(path),
            allowed=", ".join(SUFFIXES),
        )
