"""Opening of a netx file for reading; every error names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exports import hdf5
from exports.netx.group import Group


@contextmanager
def opened(path: Path, *, known: bool = False) -> Iterator[Group]:
    """The root group of the HDF5 file at `path`; parameters and errors as `exports.hdf5.opened`."""
    with hdf5.opened(path, known=known) as file:
        yield Group(file, str(path))
