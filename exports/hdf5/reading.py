"""Opens an HDF5 file for reading; whatever fails below is one error that names the file."""

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
    """The file at `path`, looked over before, so that all of it may be read.

    What fails inside the block counts as a damaged file.

    Parameters
    ----------
    known:
        The file need not be looked over: this process just wrote it, or did so before.
    also:
        What else the process that looks it over does, where a reader below could loop or crash.

    Raises
    ------
    FormatError
        If it is missing, truncated, not HDF5, larger in memory than a network needs, leads
        elsewhere or in circles, or holds something that the reader does not expect.
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
