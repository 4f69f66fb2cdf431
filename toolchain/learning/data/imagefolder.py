"""Folders (or a zip) of images: `train/<class>/<image>` and `test/<class>/<image>`.

Classes are the folder names in sorted order, the same for both splits; images alternate between
them (first of each class, second of each, ...), so that a slice holds all classes. All images
must have one size. If any image has colour, all are read as RGB (grey ones repeat their value);
transparency is refused, because dropping it would change pixels. What was decoded is kept, see
`cache.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from toolchain.containers import open_zip
from toolchain.documents import as_error
from toolchain.errors import DataError
from toolchain.learning.data.cache import cached
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.folders import alternating, files_below
from toolchain.learning.data.images import open_image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_GREY, _COLOUR = ("L", "1"), ("RGB", "P")


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split of a folder or zip.

    Raises
    ------
    DataError
        If the path, the split or a class is missing, an image is damaged, or sizes differ.
    """
    if path is None:
        raise DataError("a path is needed", node="imagefolder", remedy="imagefolder:PATH")
    identity = {"imagefolder": str(path.resolve()), "split": split}
    if path.is_dir():
        files = files_below(path, f"imagefolder:{path}")
        stamps = [[p.relative_to(path).as_posix(), *_stamp(p)] for p in files]
        names = [str(stamp[0]) for stamp in stamps]
        return cached(
            {**identity, "files": stamps},
            lambda: _load(path, split, names, lambda name: (path / name).read_bytes()),
        )
    if not path.is_file():
        raise DataError("no such folder or zip", node=f"imagefolder:{path}")
    return cached({**identity, "files": _stamp(path)}, lambda: _load_zip(path, split))


def _stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _load_zip(path: Path, split: str) -> Dataset:
    with (
        as_error(DataError, "neither a folder nor a zip", f"imagefolder:{path}"),
        open_zip(path) as archive,
    ):
        return _load(path, split, archive.namelist(), archive.read)


def _load(path: Path, split: str, names: list[str], read: Callable[[str], bytes]) -> Dataset:
    node = f"imagefolder:{path}"
    images = [
        PurePosixPath(n) for n in sorted(names) if PurePosixPath(n).suffix.lower() in SUFFIXES
    ]
    for image in images:
        if len(image.parts) < 3 or image.parts[-3] not in ("train", "test"):
            raise DataError(
                "an image lies outside train/<class>/ and test/<class>/", node=node, found=image
            )
    classes = sorted({image.parts[-2] for image in images})
    chosen = alternating([image for image in images if image.parts[-3] == split])
    if not chosen:
        raise DataError(
            f"no images under {split}/<class>/",
            node=node,
            found=f"{len(images)} images",
            allowed=", ".join(SUFFIXES),
        )
    arrays = [_decode(f"{node}/{image}", read(str(image))) for image in chosen]
    if any(a.shape[0] == 3 for a in arrays):
        arrays = [np.repeat(a, 3, axis=0) if a.shape[0] == 1 else a for a in arrays]
    for image, array in zip(chosen, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise DataError(
                "all images must have one size",
                node=node,
                found=f"{image} is {array.shape[2]}x{array.shape[1]}",
                allowed=f"{arrays[0].shape[2]}x{arrays[0].shape[1]} as {chosen[0]}",
                remedy="resize them first; nothing is resized silently here",
            )
    labels = np.array([classes.index(image.parts[-2]) for image in chosen], np.int64)
    return Dataset(node, np.stack(arrays), 255, labels, tuple(classes))


def _decode(node: str, data: bytes) -> np.ndarray:
    with open_image(data, node) as image:
        if image.mode in _GREY:
            return np.asarray(image.convert("L"), np.uint8)[None]
        if image.mode in _COLOUR and "transparency" not in image.info:
            return np.asarray(image.convert("RGB"), np.uint8).transpose(2, 0, 1)
        raise DataError(
            "pixel format is not supported",
            node=node,
            found=image.mode,
            allowed="grey or RGB, 8 bits, no transparency",
        )
