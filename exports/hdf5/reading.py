"""Opening of an HDF5 file for reading; any failure becomes one error that names the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from exports.hdf5.guard import DAMAGED, FILE_LOCKING, check_file, told, unreadable
from exports.hdf5.missing import check_is_file
from toolchain.errors import SpikeportError

__all__ = ["DAMAGED", "FILE_LOCKING", "opened"]


@contextmanager
def opened(
    path: Path, *, known: bool = False, also: Callable[[Path], object] | None = None
) -> Iterator[h5py.File]:
    """The file at `path`, checked before, so that all of it may be read.

    A failure inside the block counts as a damaged file.

    Parameters
    ----------
    known:
        Whether the file needs no check, because this process wrote it or has checked it.
    also:
        Further work for the checking process, if a reader could loop or crash.

    Raises
    ------
    FormatError
        If the file is missing, truncated, not HDF5, larger in memory than a network needs, links
        elsewhere or in circles, or contains data that the reader does not expect.
    """
    check_is_file(path)
    try:
        if not known:
            check_file(path, also)
        with h5py.File(path, "r", locking=FILE_LOCKING) as file:
            yield file
    except SpikeportError:
        raise
    except DAMAGED as error:
        raise unreadable(path, told(error)) from error
