"""Image sets in Pascal VOC's layout, a folder or a zip.

    Annotations/NAME.xml    JPEGImages/NAME.jpg    ImageSets/Main/SPLIT.txt

They may lie below other folders. Splits are what `ImageSets/Main` lists; classes are the names in
all annotations of all those splits, sorted. A box of VOC counts pixels from 1 and includes its
last one, so (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax) here. Source: the
PASCAL VOC development kit's documentation, "Annotation files".
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from toolchain.containers import open_zip
from toolchain.documents import as_error
from toolchain.errors import DataError
from toolchain.learning.data.boxes import BoxDataset, Boxes, Size, fitted
from toolchain.learning.data.folders import files_below
from toolchain.learning.data.images import open_image

SPLITS = ("train", "val", "trainval", "test")
_LISTS, _ANNOTATIONS, _IMAGES = "ImageSets/Main", "Annotations", "JPEGImages"
_Result = TypeVar("_Result")
MAX_ANNOTATION = 1 << 20
"""Bytes of an annotation; VOC's have a few thousand."""


def splits(path: Path | None) -> list[str]:
    """The splits that a folder or zip has.

    Raises
    ------
    DataError
        If there is none, or it is of another layout.
    """
    return _with_files(path, lambda files: files.splits())


def load(path: Path | None, split: str, size: Size) -> BoxDataset:
    """A split with its images scaled to fit into `size`.

    Raises
    ------
    DataError
        If the folder or zip, the split, an image or an annotation is missing or damaged, a box
        lies outside its image, or the split has no boxes; the file is named.
    """
    return _with_files(path, lambda files: _load(files, split, size))


class _Files:
    """The files of an image set, by their paths below the folder that holds `ImageSets`."""

    def __init__(self, path: Path, names: list[str], read: Callable[[str], bytes]) -> None:
        self.node = f"voc:{path}"
        self._read = read
        roots = {
            name.split(_LISTS)[0]
            for name in names
            if PurePosixPath(name).parent.as_posix().endswith(_LISTS) and name.endswith(".txt")
        }
        if len(roots) != 1:
            raise DataError(
                "not an image set in Pascal VOC's layout",
                node=self.node,
                found=f"{len(roots)} folders {_LISTS}",
                allowed=f"{_LISTS}/SPLIT.txt, {_ANNOTATIONS}/NAME.xml, {_IMAGES}/NAME.jpg",
            )
        (self._root,) = roots
        self._names = {
            name.removeprefix(self._root) for name in names if name.startswith(self._root)
        }

    def listed(self, split: str) -> list[str]:
        """Names of the images of a split."""
        file = f"{_LISTS}/{split}.txt"
        if file not in self._names:
            raise DataError(
                "no such split", node=self.node, found=split, allowed=", ".join(self.splits())
            )
        lines = self.text(file).splitlines()
        return [line.split()[0] for line in lines if line.strip()]

    def splits(self) -> list[str]:
        """Names of those splits of `SPLITS` that have a list of images."""
        return [s for s in SPLITS if f"{_LISTS}/{s}.txt" in self._names]

    def image(self, name: str) -> str:
        """Path of the image `name` in the data set; DataError if it is missing."""
        for suffix in (".jpg", ".jpeg", ".png"):
            if f"{_IMAGES}/{name}{suffix}" in self._names:
                return f"{_IMAGES}/{name}{suffix}"
        raise DataError("an image is missing", node=self.node, found=f"{_IMAGES}/{name}.jpg")

    def bytes(self, file: str) -> bytes:
        """Content of the file at this path of the data set; DataError if it is missing."""
        if file not in self._names:
            raise DataError("a file is missing", node=self.node, found=file)
        return self._read(self._root + file)

    def text(self, file: str) -> str:
        """Content of a text file."""
        try:
            return self.bytes(file).decode()
        except UnicodeDecodeError as error:
            raise DataError("not a text file", node=f"{self.node}/{file}", found=error) from error


def _with_files(path: Path | None, use: Callable[[_Files], _Result]) -> _Result:
    """What `use` makes of the files of a folder or zip."""
    if path is None:
        raise DataError("a path is needed", node="voc", remedy="voc:PATH")
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in files_below(path, f"voc:{path}")]
        return use(_Files(path, names, lambda name: (path / name).read_bytes()))
    if not path.is_file():
        raise DataError("no such folder or zip", node=f"voc:{path}")
    with (
        as_error(DataError, "neither a folder nor a zip", f"voc:{path}"),
        open_zip(path) as archive,
    ):
        return use(_Files(path, archive.namelist(), archive.read))


@dataclass(frozen=True)
class _Object:
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class _Annotation:
    """What is in one XML file; `size` is None where it does not say."""

    file: str
    size: Size | None
    objects: tuple[_Object, ...]


def _load(files: _Files, split: str, size: Size) -> BoxDataset:
    names = files.listed(split)
    if not names:
        raise DataError("the split lists no images", node=files.node, found=split)
    everything = sorted({n for s in files.splits() for n in files.listed(s)})
    annotations = {name: _annotation(files, name) for name in everything}
    classes = sorted({o.name for a in annotations.values() for o in a.objects})
    objects = [(i, o) for i, name in enumerate(names) for o in annotations[name].objects]
    if not objects:
        raise DataError(
            "the split has no boxes", node=files.node, found=f"{len(names)} images in {split}"
        )
    samples = np.zeros((len(names), 3, *size), np.uint8)
    sizes = np.zeros((len(names), 2), np.int64)
    scales = np.zeros((len(names), 2))
    for index, name in enumerate(names):
        sizes[index], scales[index] = _place(files, name, annotations[name], samples[index])
    boxes = Boxes(
        np.array([index for index, _ in objects], np.int64),
        np.array([o.corners for _, o in objects], np.float64),
        np.array([classes.index(o.name) for _, o in objects], np.int64),
        np.array([o.difficult for _, o in objects], bool),
    )
    return BoxDataset(files.node, samples, sizes, scales, boxes, tuple(classes), tuple(names))


def _annotation(files: _Files, name: str) -> _Annotation:
    file = f"{_ANNOTATIONS}/{name}.xml"
    node = f"{files.node}/{file}"
    data = files.bytes(file)
    if len(data) > MAX_ANNOTATION or b"<!DOCTYPE" in data:
        raise DataError(
            "not an annotation: too long, or with a document type",
            node=node,
            found=f"{len(data)} bytes",
        )
    with as_error(DataError, "malformed XML", node):
        root = ET.fromstring(data)
    size = None
    if root.find("size") is not None:
        size = (
            int(_number(root, "size/height", node)),
            int(_number(root, "size/width", node)),
        )
    objects = tuple(_object(element, node) for element in root.findall("object"))
    return _Annotation(file, size, objects)


def _object(element: ET.Element, node: str) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError("an object has no name", node=node)
    left, top, right, bottom = (
        _number(element, f"bndbox/{key}", node) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    if right < left or bottom < top:
        raise DataError(
            "a box ends before it begins",
            node=node,
            found=f"{name} {left:g}, {top:g} .. {right:g}, {bottom:g}",
        )
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return _Object(name, (left - 1, top - 1, right, bottom), difficult)


def _number(element: ET.Element, path: str, node: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError("a number is missing or damaged", node=node, found=f"{path} {text!r}")
    return value


def _place(
    files: _Files, name: str, annotation: _Annotation, into: np.ndarray
) -> tuple[Size, tuple[float, float]]:
    """Decode an image and put it, scaled, into `into`, uint8 (3, H, W): its size and scale."""
    from PIL.Image import Resampling

    file = files.image(name)
    node = f"{files.node}/{file}"
    with open_image(files.bytes(file), node) as image:
        if image.mode not in ("L", "RGB"):
            raise DataError(
                "pixel format is not supported",
                node=node,
                found=image.mode,
                allowed="grey or RGB, 8 bits",
            )
        stored = (image.height, image.width)
        _check_boxes(annotation, stored, files.node)
        height, width = fitted(stored, (into.shape[1], into.shape[2]))
        scaled = image.convert("RGB").resize((width, height), Resampling.BILINEAR)
        into[:, :height, :width] = np.asarray(scaled).transpose(2, 0, 1)
    return stored, (height / stored[0], width / stored[1])


def _check_boxes(annotation: _Annotation, stored: Size, node: str) -> None:
    if annotation.size not in (None, stored):
        raise DataError(
            "the annotation is of an image of another size",
            node=f"{node}/{annotation.file}",
            found=f"{annotation.size} (height, width)",
            allowed=stored,
        )
    for found in annotation.objects:
        left, top, right, bottom = found.corners
        if left < 0 or top < 0 or right > stored[1] or bottom > stored[0]:
            raise DataError(
                "a box lies outside its image",
                node=f"{node}/{annotation.file}",
                found=f"{found.name} {left + 1:g}, {top + 1:g} .. {right:g}, {bottom:g}",
                allowed=f"1, 1 .. {stored[1]}, {stored[0]}",
            )
