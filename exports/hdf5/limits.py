"""Check of an HDF5 file, without reading large data, against the bounds of a network file.

No link is followed out of the file, and no dataset is read before its size is known. If no excess
is reported, the readers may read everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import h5py

MAX_OBJECTS = 100_000
MAX_DEPTH = 16
LARGEST_DATASET = 4 << 30
"""Largest dataset in memory, in bytes; VGG16's largest, as float64 at 224 pixels, has 0.8 GB."""
LARGEST_FILE = 16 << 30
"""Largest total size of all datasets in memory, in bytes."""
LARGEST_TEXT = 16 << 20
"""Largest string, in bytes; the longest of a network is its provenance, of some kilobytes."""
MOST_TEXTS = 100_000
"""Most strings of variable length in one dataset; a NIR graph has two per edge."""
SMALL = 16 << 20
"""Bytes up to which a dataset may be compressed without a limit."""
MOST_COMPRESSED = 200
"""Largest ratio of a dataset's size in memory to its size in the file; deflate reaches 1000 on
zeros."""
SMALL_FILE = 64 << 20
"""Bytes up to which all datasets together may be compressed without a limit."""
FILE_COMPRESSED = 50
"""Largest ratio of the size of all datasets in memory to the size of the file."""


class Excess(NamedTuple):
    """A property that exceeds the bounds of a network file.

    Attributes
    ----------
    where:
        Path inside the file.
    found:
        Value at this path.
    """

    where: str
    found: str


def beyond_limits(file: h5py.File) -> Iterator[Excess]:
    """All excesses of `file`, in its order."""
    total = 0
    for where, item in _objects(file):
        if isinstance(item, str):
            yield Excess(where, item)
        elif isinstance(item, h5py.Dataset):
            found, size = _looked_at(item)
            total += size
            if found is not None:
                yield Excess(where, found)
    size = file.id.get_filesize()
    if total > LARGEST_FILE or total > max(SMALL_FILE, FILE_COMPRESSED * size):
        yield Excess("/", f"{total:,} bytes in memory, {size:,} in the file")


def _objects(root: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset | str]]:
    """All objects that hard links reach, each once, with their paths; other links as text."""
    seen = {_address(root)}
    waiting: list[tuple[str, h5py.Group, int]] = [("", root, 0)]
    links = 0
    while waiting:
        path, group, depth = waiting.pop()
        for name in group:
            where = f"{path}/{name}"
            links += 1
            if links > MAX_OBJECTS:
                yield where, f"more than {MAX_OBJECTS:,} links"
                return
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                yield where, _described(link)
                continue
            item = group[name]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                yield where, f"a {type(item).__name__}, no data"
                continue
            if _address(item) in seen:
                yield where, "a second link to the same object, or a cycle"
                continue
            seen.add(_address(item))
            yield where, item
            if isinstance(item, h5py.Group):
                if depth + 1 >= MAX_DEPTH:
                    yield where, f"groups nested deeper than {MAX_DEPTH}"
                else:
                    waiting.append((where, item, depth + 1))


def _address(item: h5py.Group | h5py.Dataset) -> tuple[int, int]:
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _described(link: object) -> str:
    if isinstance(link, h5py.ExternalLink):
        return f"a link into another file, {link.filename!r}"
    if isinstance(link, h5py.SoftLink):
        return f"a soft link to {link.path!r}"
    return "a link of an unknown kind"


def _looked_at(dataset: h5py.Dataset) -> tuple[str | None, int]:
    """Fault of a dataset's storage, or None, and its size in memory in bytes."""
    strange = _strange(dataset)
    if strange is not None:
        return strange, 0
    size = int(dataset.size or 0) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    chunk = prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    text = dataset.dtype.kind in "SO"
    if size > (LARGEST_TEXT if text else LARGEST_DATASET) or chunk > max(SMALL, size):
        size = max(size, chunk)
        return f"shape {dataset.shape} of {dataset.dtype}, {size:,} bytes in memory", 0
    if size > SMALL and size > MOST_COMPRESSED * stored:
        return f"{size:,} bytes in memory, {stored:,} in the file", 0
    return None, size


def _strange(dataset: h5py.Dataset) -> str | None:
    """Reason why a dataset is stored elsewhere, or contains neither numbers nor text; else None."""
    if dataset.is_virtual:
        return "a virtual dataset, made of parts of other files"
    if dataset.id.get_create_plist().get_external_count():
        return "data kept in another file"
    if dataset.dtype.hasobject and (
        h5py.check_string_dtype(dataset.dtype) is None or (dataset.size or 0) > MOST_TEXTS
    ):
        return f"references or sequences of any length ({dataset.dtype} {dataset.shape})"
    return None
