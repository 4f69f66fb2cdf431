"""Writes HDF5 files by way of memory.

HDF5 does not survive a full disk: it keeps what it could not write, tries again when the process
ends, and crashes. In memory nothing fails, and the rest is one plain write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py

from toolchain.files import atomic_path


@contextmanager
def new_hdf5(path: Path, fill: Callable[[BytesIO], None]) -> Iterator[Path]:
    """Write the file that `fill` makes; yield where it lies until it becomes `path`, to check it.

    Raises
    ------
    OutputError
        If it cannot be written, with nothing left behind.
    """
    image = BytesIO()
    fill(image)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            file.write(image.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        yield temporary


@contextmanager
def changed_hdf5(path: Path, change: Callable[[h5py.File], None]) -> Iterator[Path]:
    """As `new_hdf5`, but writes the file at `path` as `change` leaves it."""

    def fill(image: BytesIO) -> None:
        image.write(path.read_bytes())
        with h5py.File(image, "r+") as file:
            change(file)

    with new_hdf5(path, fill) as temporary:
        yield temporary
