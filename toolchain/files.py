"""Writing files so that nothing half-written is ever left behind, and what they hold."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolchain.errors import OutputError

READ_AT_ONCE = 1 << 22
"""Bytes."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, else removed.

    Raises
    ------
    OutputError
        If the folder is missing or cannot be written.
    """
    temporary = _made_beside(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError("cannot be written", node=str(path), found=error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _made_beside(path: Path) -> Path:
    """A new empty file beside `path`; raises OutputError as `atomic_path`."""
    if path.is_dir():
        raise OutputError("the output is a folder", node=str(path), remedy="give a file name")
    if not path.parent.is_dir():
        raise OutputError(
            "the folder to write into is not there",
            node=str(path),
            remedy=f"mkdir -p {path.parent}",
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OutputError("cannot be written", node=str(path), found=error.strerror) from error
    return temporary


def check_writable(path: Path) -> None:
    """Raise OutputError, before a long run, if `atomic_path(path)` could not be written."""
    _made_beside(path).unlink()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file and a rename."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> Path:
    """Make `path` and its parents; raises OutputError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", node=str(path), found=error.strerror
        ) from error
    return path
