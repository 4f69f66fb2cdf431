"""CIFAR-10 and CIFAR-100 from their official binary version (32x32 RGB, 50,000 + 10,000).

Source of the layout: "Binary version" on the CIFAR page (Krizhevsky, 2009). A record is one
label byte (CIFAR-100: coarse, then fine) and 3,072 pixels, channel by channel, row by row. The
path is the extracted folder, a folder that holds it, or the `.tar.gz` itself. The version for
Python is refused: it is a pickle, and unpickling runs whatever code the file contains.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from toolchain.containers import tar_members
from toolchain.documents import as_error
from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """Where a version keeps what; the label used is the last of `label_bytes`."""

    name: str
    folder: str
    label_bytes: int
    files: dict[str, tuple[str, ...]]
    names_file: str
    num_classes: int


_CIFAR10 = _Layout(
    "cifar10",
    "cifar-10-batches-bin",
    1,
    {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    "batches.meta.txt",
    10,
)
_CIFAR100 = _Layout(
    "cifar100",
    "cifar-100-binary",
    2,
    {"train": ("train.bin",), "test": ("test.bin",)},
    "fine_label_names.txt",
    100,
)
_PICKLED = ("data_batch_1", "test_batch", "batches.meta", "train", "test", "meta")
"""Files of the version for Python."""
Read = Callable[[str], bytes | None]


def _load(layout: _Layout, path: Path | None, split: str) -> Dataset:
    if path is None:
        raise DataError("a path is needed", node=layout.name, remedy=f"{layout.name}:DIR")
    node = f"{layout.name}:{path}"
    if path.is_dir():
        folder = path / layout.folder if (path / layout.folder).is_dir() else path
        return _read(layout, node, split, partial(_from_folder, folder))
    if not path.is_file():
        raise DataError("no such folder or archive", node=node)
    with (
        as_error(DataError, "neither a folder nor a readable tar archive", node),
        tarfile.open(path) as archive,
    ):
        members = list(tar_members(archive, path.stat().st_size))
        return _read(layout, node, split, partial(_from_archive, archive, members, layout.folder))


def _from_folder(folder: Path, name: str) -> bytes | None:
    file = folder / name
    return file.read_bytes() if file.is_file() else None


def _from_archive(
    archive: tarfile.TarFile, members: list[tarfile.TarInfo], folder: str, name: str
) -> bytes | None:
    wanted = {name, f"./{name}", f"{folder}/{name}", f"./{folder}/{name}"}
    for member in members:
        if member.name in wanted or member.name.endswith(f"-py/{name}"):
            content = archive.extractfile(member)
            return content.read() if content is not None else None
    return None


def _read(layout: _Layout, node: str, split: str, read: Read) -> Dataset:
    samples, labels = [], []
    for name in layout.files[split]:
        data = read(name)
        if data is None:
            _refuse_pickles(layout, node, read)
            raise DataError(
                f"{name} is missing",
                node=node,
                allowed=f"the binary version: {', '.join(layout.files[split])}",
            )
        record = layout.label_bytes + PIXELS
        if len(data) == 0 or len(data) % record:
            raise DataError(
                "not a whole number of records",
                node=f"{node}/{name}",
                found=f"{len(data)} bytes",
                allowed=f"a multiple of {record}",
            )
        rows = np.frombuffer(data, np.uint8).reshape(-1, record)
        labels.append(rows[:, layout.label_bytes - 1].astype(np.int64))
        samples.append(rows[:, layout.label_bytes :].reshape(-1, *SHAPE))
    names = _class_names(layout, node, read)
    return Dataset(node, np.concatenate(samples), 255, np.concatenate(labels), names)


def _class_names(layout: _Layout, node: str, read: Read) -> tuple[str, ...]:
    data = read(layout.names_file)
    if data is None:
        raise DataError(f"{layout.names_file} is missing", node=node)
    names = tuple(n.strip() for n in data.decode("utf-8", "replace").splitlines() if n.strip())
    if len(names) != layout.num_classes:
        raise DataError(
            "wrong number of class names",
            node=f"{node}/{layout.names_file}",
            found=len(names),
            allowed=layout.num_classes,
        )
    return names


def _refuse_pickles(layout: _Layout, node: str, read: Read) -> None:
    found = [name for name in _PICKLED if read(name) is not None]
    if found:
        raise DataError(
            "this is the version for Python, a pickle, and unpickling runs code from the file",
            node=node,
            found=", ".join(found),
            allowed=f"the binary version ({', '.join(layout.files['train'])})",
            remedy="download the one called 'binary version (suitable for C programs)'",
        )


load_cifar10 = partial(_load, _CIFAR10)
load_cifar100 = partial(_load, _CIFAR100)
