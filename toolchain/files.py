"""Atomic writing of files, and their hashes.

Every output is written through `atomic_path`: it follows links, refuses anything that is not a
regular file, and removes temporary files that killed writers of the same name left behind.
`output_policy` says which names and which earlier files a command may overwrite.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toolchain.errors import OutputError

READ_AT_ONCE = 1 << 22
"""Bytes read at once for a hash."""
ABANDONED_SECONDS = 86_400.0
"""Age in seconds after which a temporary file of another machine counts as abandoned.

Writing a file takes minutes.
"""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it otherwise.

    A link is followed: its target is written, and the link stays.

    Raises
    ------
    OutputError
        If `path` is not a regular file, the folder is missing, or either cannot
        be written.
    """
    place = _place(path)
    temporary = _made_beside(place, path)
    try:
        yield temporary
        temporary.replace(place)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OutputError, before a long run, if `atomic_path(path)` could not be written."""
    _made_beside(_place(path), path).unlink()


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file and a rename."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> Path:
    """Make the folder `path` and its parents; raises OutputError on failure."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", node=str(path), found=error.strerror
        ) from error
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits; the file is read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            digest.update(piece)
    return digest.hexdigest()


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError("cannot be written", node=str(path), found=error.strerror or error)


def _place(path: Path) -> Path:
    """The regular file, existing or not, that `path` names, with links followed.

    Raises
    ------
    OutputError
        If `path` is not a regular file, or the folder to write into is missing.
    """
    place = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        _check_folder(place.parent, path)
        return place
    except OSError as error:
        raise _failed(path, error) from error
    if stat.S_ISDIR(mode):
        raise OutputError("the output is a folder", node=str(path), remedy="give a file name")
    if not stat.S_ISREG(mode):
        raise OutputError(
            "the output is not a regular file",
            node=str(path),
            found=_what_stands_there(mode),
            remedy="give the name of a file; it is written whole and then put in place",
        )
    return place


def _what_stands_there(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    ):
        if test(mode):
            return name
    return f"mode {stat.filemode(mode)}"


def _check_folder(folder: Path, path: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise OutputError(
            "the folder to write into is a file",
            node=str(path),
            found=there,
            remedy="give a name in a folder",
        )
    if there != folder:
        raise OutputError(
            "the folder to write into is not there",
            node=str(path),
            remedy=f"mkdir -p {path.parent}",
        )


def _made_beside(place: Path, path: Path) -> Path:
    """Make a new empty file beside `place`, after abandoned ones of that name are removed.

    Its name identifies the writer: `.NAME.MACHINE-PROCESS-RANDOM`.
    """
    _remove_dead(place)
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = place.with_name(f".{place.name}.{writer}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _failed(path, error) from error
    return temporary


def _remove_dead(place: Path) -> None:
    """Remove temporary files of this name whose writers are gone; those of live writers stay.

    The process number decides on this machine. For files of other machines, and of versions whose
    file names did not identify the writer, the age decides.
    """
    form = re.compile(
        rf"\.{re.escape(place.name)}\.(?:(?P<machine>[0-9a-f]{{8}})-(?P<process>\d+)-[0-9a-f]{{8}}"
        r"|[0-9a-f]{12})"
    )
    # The folder cannot be listed, or another process removes the file: there is nothing to remove.
    with suppress(OSError), os.scandir(place.parent) as entries:
        for entry in entries:
            match = form.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and _is_dead(entry, match):
                with suppress(OSError):
                    Path(entry.path).unlink()


def _is_dead(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    if match["machine"] != _machine():
        return time.time() - entry.stat().st_mtime > ABANDONED_SECONDS
    try:
        os.kill(int(match["process"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    """Eight hexadecimal digits that identify this machine or container."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
