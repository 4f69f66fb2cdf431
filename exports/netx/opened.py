"""Opens a netx file for reading; every failure names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from exports.netx.group import Group
from exports.netx.layout import FILE_LOCKING
from exports.netx.missing import check_is_file
from toolchain.errors import FormatError


@contextmanager
def opened(path: Path) -> Iterator[Group]:
    """The root group of the HDF5 file at `path`.

    Raises
    ------
    FormatError
        If it is missing, truncated or not HDF5.
    """
    check_is_file(path)
    try:
        with h5py.File(path, "r", locking=FILE_LOCKING) as file:
            yield Group(file, str(path))
    except OSError as error:
        raise FormatError(
            "not a readable HDF5 file (truncated, or another format)",
            node=str(path),
            found=str(error).splitlines()[0],
            remedy="export it again",
        ) from error
