"""The IDX format of the MNIST family: unsigned bytes behind a big-endian header, maybe gzipped.

Source: the format's description on the MNIST page: two zero bytes, type 0x08 (unsigned byte),
the number of axes, then one big-endian uint32 an axis.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from toolchain.errors import DataError


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Read `path` or `path`.gz as uint8 with `axes` axes.

    Raises
    ------
    DataError
        If neither file is there, or its content does not fit its header.
    """
    zipped = path.with_name(path.name + ".gz")
    if path.is_file():
        data = path.read_bytes()
    elif zipped.is_file():
        try:
            data = gzip.decompress(zipped.read_bytes())
        except (OSError, EOFError) as error:
            raise DataError("the file is damaged", node=str(zipped), found=error) from error
    else:
        raise DataError("no such file", node=str(path), allowed=f"{path.name} or {zipped.name}")
    header = 4 + 4 * axes
    if len(data) < header or data[:4] != bytes((0, 0, 8, axes)):
        raise DataError(
            "not an IDX file of unsigned bytes", node=str(path), found=data[:4].hex(" ")
        )
    shape = tuple(int(s) for s in np.frombuffer(data, ">u4", axes, 4))
    values = np.frombuffer(data, np.uint8, offset=header)
    if values.size != int(np.prod(shape)):
        raise DataError(
            "the content does not fit the header",
            node=str(path),
            found=f"{values.size} bytes",
            allowed=f"{shape}",
        )
    return values.reshape(shape)
