"""Bounded reading of `.npz`, zip, gzip and tar: sizes are checked before memory is allocated.

A compressed file may declare or contain far more than its own size. `most_unpacked` bounds the
unpacked size; arrays take memory for the data that are stored, not for what their header says.
Errors are Python's own; a reader wraps them with `documents.as_error`.
"""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from toolchain.files import READ_AT_ONCE

ALWAYS_ALLOWED = 256 << 20
"""Unpacked bytes that any file may have."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods allowed in a zip; zipfile unpacks the others without a bound on size."""
MOST_TIMES = 200
"""Largest ratio of unpacked to stored size of a larger file.

Recordings of spikes stay below 30; deflate reaches 1,032 with zeros alone.
"""


def most_unpacked(stored: int) -> int:
    """Largest unpacked size of a file of `stored` bytes, in bytes."""
    return max(ALWAYS_ALLOWED, MOST_TIMES * stored)


def check_unpacked(stored: int, unpacked: int) -> None:
    """Raise ValueError if a file of `stored` bytes must not unpack to `unpacked` bytes."""
    if unpacked > most_unpacked(stored):
        raise ValueError(
            f"{stored:,} bytes that unpack to {unpacked:,}, more than {MOST_TIMES} times as many"
        )


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose members have a total size that `check_unpacked` allows.

    Raises
    ------
    OSError, zipfile.BadZipFile, ValueError
        If the file is missing, damaged or too large. Reading a member raises the same.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_unpacked(path.stat().st_size, sum(m.file_size for m in members))
        for member in members:
            if member.compress_type not in METHODS:
                raise ValueError(
                    f"{member.filename} is packed by compression method {member.compress_type}"
                )
        yield archive


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Writable arrays of an `.npz`: all, or those of `names` that it contains.

    Only arrays of numbers, booleans and text are read: nothing is ever unpickled.

    Raises
    ------
    OSError, zipfile.BadZipFile, ValueError
        If the file is missing, damaged or too large. Errors of zlib and NumPy pass through.
    """
    with open_zip(path) as archive:
        members = {m.removesuffix(".npy"): m for m in archive.namelist() if m.endswith(".npy")}
        chosen = members if names is None else {n: members[n] for n in names if n in members}
        return {name: _array(archive, member) for name, member in chosen.items()}


def npz_names(path: Path) -> list[str]:
    """Names of the arrays of an `.npz`; raises the errors of `read_npz`."""
    with open_zip(path) as archive:
        return [m.removesuffix(".npy") for m in archive.namelist() if m.endswith(".npy")]


def _array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    size = archive.getinfo(member).file_size
    data = bytearray(size)
    view, held = memoryview(data), 0
    with archive.open(member) as file:
        # Read to the end, where the checksum is compared.
        while part := file.read(READ_AT_ONCE):
            view[held : held + len(part)] = part
            held += len(part)
    if held != size:
        raise ValueError(f"{member} ends after {held:,} of {size:,} bytes")
    header = io.BytesIO(bytes(data[: 1 << 16]))
    version = np.lib.format.read_magic(header)  # type: ignore[no-untyped-call]
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"{member} is of version {version} of NumPy's format")
    shape, by_columns, dtype = read[version](header)  # type: ignore[no-untyped-call]
    if dtype.kind not in "biufU":
        raise ValueError(f"{member} holds {dtype}, which is neither numbers nor text")
    needed = math.prod(shape) * dtype.itemsize
    start = header.tell()
    if any(s < 0 for s in shape) or needed != size - start:
        raise ValueError(f"{member} holds {size - start:,} bytes, not {needed:,} as {shape} needs")
    values = np.frombuffer(view[start:], dtype) if needed else np.zeros(0, dtype)
    return values.reshape(shape, order="F" if by_columns else "C")


def read_gzip(path: Path, size: int) -> bytes:
    """The first `size` unpacked bytes of a gzip file.

    Raises
    ------
    OSError, EOFError, zlib.error, ValueError
        If the file is missing or damaged, or `size` is more than `check_unpacked` allows.
    """
    check_unpacked(path.stat().st_size, size)
    with gzip.open(path) as file:
        return file.read(size)


def tar_members(archive: tarfile.TarFile, stored: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of an open archive of `stored` bytes.

    Raises
    ------
    tarfile.TarError, OSError, EOFError, zlib.error, ValueError
        If the archive is damaged, or larger than `check_unpacked` allows.
    """
    for member in archive:
        check_unpacked(stored, member.offset_data + member.size)
        if member.isfile():
            yield member
