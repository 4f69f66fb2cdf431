"""The IDX format of the MNIST family: unsigned bytes behind a big-endian header, maybe gzipped.

Source: the format's description on the MNIST page: two zero bytes, type 0x08 (unsigned byte),
the number of axes, then one big-endian uint32 per axis.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from toolchain.containers import read_gzip
from toolchain.documents import as_error
from toolchain.errors import DataError


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Read `path` or `path`.gz as uint8 with `axes` axes.

    Raises
    ------
    DataError
        If neither file is there, or its content does not fit its header.
    """
    zipped = path.with_name(path.name + ".gz")
    found = path if path.is_file() else zipped
    if not found.is_file():
        raise DataError("no such file", node=str(path), allowed=f"{path.name} or {zipped.name}")
    with as_error(DataError, "the file is damaged", str(found)):
        start = 4 + 4 * axes
        header = _content(found, start)
        if len(header) < start or header[:4] != bytes((0, 0, 8, axes)):
            raise DataError(
                "not an IDX file of unsigned bytes", node=str(found), found=header[:4].hex(" ")
            )
        shape = tuple(int(s) for s in np.frombuffer(header, ">u4", axes, 4))
        size = math.prod(shape)
        values = np.frombuffer(_content(found, start + size + 1), np.uint8, offset=start)
        if values.size != size:
            raise DataError(
                "the content does not fit the header",
                node=str(found),
                found=f"{'more' if values.size > size else values.size} bytes",
                allowed=f"{shape}",
            )
        return values.reshape(shape)


def _content(path: Path, size: int) -> bytes:
    """Up to `size` bytes of what the file holds, unpacked where it is a gzip."""
    if path.suffix == ".gz":
        return read_gzip(path, size)
    with path.open("rb") as file:
        return file.read(min(size, path.stat().st_size))
