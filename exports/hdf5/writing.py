"""Writing of HDF5 files through memory.

HDF5 does not survive a full disk: it keeps the data that it could not write, tries again when the
process ends, and crashes. In memory this cannot happen, and the file is then written at once.
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
    """Write the file that `fill` makes; yield its temporary path, to check it before the rename.

    Raises
    ------
    OutputError
        If the file cannot be written; no partial file remains.
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
    """Write the file at `path` with the changes of `change`, as `new_hdf5` does."""

    def fill(image: BytesIO) -> None:
        image.write(path.read_bytes())
        with h5py.File(image, "r+") as file:
            change(file)

    with new_hdf5(path, fill) as temporary:
        yield temporary
