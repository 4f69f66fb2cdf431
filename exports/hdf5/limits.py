"""Looks over a whole HDF5 file without reading large data, and tells what a network never needs.

Nothing is followed out of the file, and no dataset is read before its size is known: where nothing
is told, the readers may take everything in.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import h5py

MAX_OBJECTS = 100_000
MAX_DEPTH = 16
LARGEST_DATASET = 4 << 30
"""Bytes in memory; VGG16's largest layer, as float64, is 0.8 GB at 224 pixels."""
LARGEST_FILE = 16 << 30
"""Bytes in memory of all datasets together."""
LARGEST_TEXT = 16 << 20
"""Bytes of a string; the longest that a network has is its provenance, of some kilobytes."""
MOST_TEXTS = 100_000
"""Strings of any length in one dataset; a NIR graph has two for an edge."""
SMALL = 16 << 20
"""Bytes up to which a dataset may be compressed as far as it goes."""
MOST_COMPRESSED = 200
"""How many times larger than in the file a dataset may be; deflate reaches 1000 on zeros."""
SMALL_FILE = 64 << 20
"""Bytes up to which all datasets together may be compressed as far as they go."""
FILE_COMPRESSED = 50
"""How many times larger than the file all datasets together may be."""


class Excess(NamedTuple):
    """One thing that a network file does not need.

    Attributes
    ----------
    where:
        Path inside the file.
    found:
        What stands there.
    """

    where: str
    found: str


def beyond_limits(file: h5py.File) -> Iterator[Excess]:
    """All that speaks against reading `file`, in its order."""
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
    """All objects that hard links reach, each once, with their paths; what is none is told."""
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
    """What is wrong with how it is stored, or None, and the bytes it takes in memory."""
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
    """How it lies elsewhere, or holds what is no number or text."""
    if dataset.is_virtual:
        return "a virtual dataset, made of parts of other files"
    if dataset.id.get_create_plist().get_external_count():
        return "data kept in another file"
    if dataset.dtype.hasobject and (
        h5py.check_string_dtype(dataset.dtype) is None or (dataset.size or 0) > MOST_TEXTS
    ):
        return f"references or sequences of any length ({dataset.dtype} {dataset.shape})"
    return None
