"""Looks over a whole HDF5 file without reading any data, and refuses what a network never needs.

Nothing is followed out of the file, and no dataset is read before its size is known: afterwards
the readers may take everything in.
"""

from __future__ import annotations

from collections.abc import Iterator

import h5py

from exports.netx.lint.findings import Findings

MAX_OBJECTS = 100_000
MAX_DEPTH = 16
LARGEST_DATASET = 4 << 30
"""Bytes in memory; VGG16's largest layer, as float64, is 0.8 GB at 224 pixels."""
LARGEST_FILE = 16 << 30
"""Bytes in memory of all datasets together."""
SMALL = 16 << 20
"""Bytes up to which a dataset may be compressed as far as it goes."""
MOST_COMPRESSED = 200
"""How many times larger than in the file a dataset may be; deflate reaches 1000 on zeros."""


def look_over(file: h5py.File, findings: Findings) -> bool:
    """Whether the file may be read; what speaks against it goes into `findings`."""
    before = len(findings.found)
    total = 0
    for count, (where, item) in enumerate(_objects(file, findings)):
        if count >= MAX_OBJECTS:
            findings.add("hostile", where, f"more than {MAX_OBJECTS:,} objects")
            break
        if isinstance(item, h5py.Dataset):
            total += _check_dataset(where, item, findings)
    if total > LARGEST_FILE:
        findings.add("hostile", "/", f"{total:,} bytes in memory")
    return len(findings.found) == before


def _objects(
    root: h5py.Group, findings: Findings
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """All objects that hard links reach, each once, with their paths."""
    seen = {_address(root)}
    waiting: list[tuple[str, h5py.Group, int]] = [("", root, 0)]
    links = 0
    while waiting:
        path, group, depth = waiting.pop()
        for name in group:
            where = f"{path}/{name}"
            links += 1
            if links > MAX_OBJECTS:
                findings.add("hostile", where, f"more than {MAX_OBJECTS:,} links")
                return
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                findings.add("hostile", where, _described(link))
                continue
            item = group[name]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                findings.add("hostile", where, f"a {type(item).__name__}, no data")
                continue
            if _address(item) in seen:
                findings.add("hostile", where, "a second link to the same object, or a cycle")
                continue
            seen.add(_address(item))
            yield where, item
            if isinstance(item, h5py.Group):
                if depth + 1 >= MAX_DEPTH:
                    findings.add("hostile", where, f"groups nested deeper than {MAX_DEPTH}")
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


def _check_dataset(where: str, dataset: h5py.Dataset, findings: Findings) -> int:
    """Bytes it takes in memory; findings about how it is stored."""
    if dataset.is_virtual:
        findings.add("hostile", where, "a virtual dataset, made of parts of other files")
        return 0
    if dataset.id.get_create_plist().get_external_count():
        findings.add("hostile", where, "data kept in another file")
        return 0
    if dataset.dtype.hasobject and h5py.check_string_dtype(dataset.dtype) is None:
        findings.add("hostile", where, f"references or sequences of any length ({dataset.dtype})")
        return 0
    size = int(dataset.size or 0) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if size > LARGEST_DATASET:
        findings.add("hostile", where, f"shape {dataset.shape}, {size:,} bytes in memory")
    elif size > SMALL and size > MOST_COMPRESSED * stored:
        findings.add("hostile", where, f"{size:,} bytes in memory, {stored:,} in the file")
    return size
