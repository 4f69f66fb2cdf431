"""Text files from others: bounded in size, parsed into declared types, one error class each.

A reader wraps its work in `as_error`, which turns every error of a parser into the reader's own
error class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from toolchain.errors import SpikeportError

MOST_BYTES = 64 << 20
"""Largest size of a document, in bytes.

The largest document of this project, a log of thousands of epochs, has a tenth of it.
"""
MOST_SAID = 300
"""Most characters of a parser's message that an error quotes."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_Kind = TypeVar("_Kind")


@contextmanager
def as_error(
    kind: type[SpikeportError], message: str, node: str, remedy: str | None = None
) -> Iterator[None]:
    """Raise `kind` in place of any exception inside the block that is not a SpikeportError."""
    try:
        yield
    except SpikeportError:
        raise
    except Exception as error:
        told = " ".join(_COLOURS.sub("", str(error)).split())[:MOST_SAID]
        told = f"{type(error).__name__}: {told}"
        raise kind(message, node=node, found=told, remedy=remedy) from error


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A file's text as UTF-8; raises OSError, or ValueError if it has more than `most` bytes."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"over {most:,} bytes")
    return data.decode("utf-8")


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object with finite numbers; raises ValueError for anything else."""
    values = json.loads(text, parse_constant=_refuse)
    if not isinstance(values, dict):
        raise ValueError(f"a JSON object is needed, found {type(values).__name__}")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def typed(kind: type[_Kind], values: Any) -> _Kind:
    """Plain `values`, as parsed from JSON, TOML or SQLite, converted to the declared type `kind`.

    Only lists become tuples, whole numbers floats, and tables dataclasses.

    Raises
    ------
    msgspec.ValidationError
        A ValueError that says what was expected, and where.
    ValueError
        If a dataclass does not have a given field.
    """
    if is_dataclass(kind) and isinstance(values, dict):
        unknown = {str(k) for k in values} - {f.name for f in fields(kind)}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return msgspec.convert(values, kind)
