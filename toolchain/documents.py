"""Text files that others may have written: bounded, parsed into declared types, one error each.

A reader works inside `as_error`: whatever a parser below it raises becomes the reader's own error
there and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from toolchain.errors import SpikeportError

MOST_BYTES = 64 << 20
"""Of a document. The largest of ours, a log of thousands of epochs, has a tenth of it."""
MOST_SAID = 300
"""Characters of what a parser says."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_Kind = TypeVar("_Kind")


@contextmanager
def as_error(
    kind: type[SpikeportError], message: str, node: str, remedy: str | None = None
) -> Iterator[None]:
    """Raise `kind` for whatever fails inside, in place of all that is not an error of ours."""
    try:
        yield
    except SpikeportError:
        raise
    except Exception as error:
        told = " ".join(_COLOURS.sub("", str(error)).split())[:MOST_SAID]
        told = f"{type(error).__name__}: {told}"
        raise kind(message, node=node, found=told, remedy=remedy) from error


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A file's text, UTF-8; raises OSError, or ValueError, for one of over `most` bytes too."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"over {most:,} bytes")
    return data.decode("utf-8")


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object with finite numbers; raises ValueError."""
    values = json.loads(text, parse_constant=_refuse)
    if not isinstance(values, dict):
        raise ValueError(f"a JSON object is needed, found {type(values).__name__}")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def typed(kind: type[_Kind], values: Any) -> _Kind:
    """`values`, made of what JSON, TOML and SQLite hold, as the declared type `kind`.

    Nothing is converted but lists to tuples, whole numbers to floats and tables to dataclasses.

    Raises
    ------
    msgspec.ValidationError
        A ValueError that says what was expected where.
    """
    return msgspec.convert(values, kind)
