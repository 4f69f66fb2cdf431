"""The grammar of data sources: `NAME[:PATH[,OPTIONS]][@SPLIT[[START:STOP]]]`.

`FILE.py:FACTORY` may stand for name and path.

Examples: `digits`, `digits@test[:50]`, `digits@test[-50:]`, `imagefolder:photos.zip@train`,
`events:recordings,frames=10,down=2@test`, `npz:set.npz@test[10:20]`, `voc:VOC2007@trainval`,
`mine.py:loader`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.errors import DataError
from toolchain.learning.data import (
    cifar,
    cifar10dvs,
    digits,
    dvsgesture,
    events,
    imagefolder,
    mnist,
    moving_shapes,
    npz,
    shapes,
    voc,
)
from toolchain.learning.data.boxes import BoxDataset, Size
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.frames import OPTIONS
from toolchain.learning.data.torch_data import labelled
from toolchain.user_code import home_of, load_source, user_code

Loader = Callable[[Path | None, str], Dataset]

SOURCES: dict[str, Loader] = {
    "cifar10": cifar.load_cifar10,
    "cifar100": cifar.load_cifar100,
    "digits": digits.load,
    "fashion-mnist": mnist.load_fashion_mnist,
    "imagefolder": imagefolder.load,
    "mnist": mnist.load_mnist,
    "moving-shapes": moving_shapes.load,
    "npz": npz.load,
}
EventLoader = Callable[[Path | None, str, str], Dataset]

EVENT_SOURCES: dict[str, EventLoader] = {
    "cifar10dvs": cifar10dvs.load,
    "dvsgesture": dvsgesture.load,
    "events": events.load,
    "nmnist": events.load_nmnist,
}
"""Recordings of event cameras, with options behind the path: how they become frames."""
BoxLoader = Callable[[Path | None, str, Size], BoxDataset]
SplitLister = Callable[[Path | None], list[str]]

BOX_SOURCES: dict[str, tuple[BoxLoader, SplitLister]] = {
    "shapes": (shapes.load, shapes.splits),
    "voc": (voc.load, voc.splits),
}
"""Images with boxes, for detectors: what loads them, and what lists their splits."""
FORMS = (
    "digits, fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, cifar100:DIR, imagefolder:PATH, "
    "npz:PATH (arrays train_samples, train_labels, test_samples, test_labels), moving-shapes, "
    "events:PATH,frames=T, nmnist:DIR,frames=T, dvsgesture:DIR,frames=T, cifar10dvs:DIR,frames=T, "
    "FILE.py:FACTORY (a function that returns a torch Dataset or DataLoader), and for "
    "detectors shapes and voc:PATH"
)
SPLITS = ("train", "test")
_SPLIT = r"(?:@(?P<split>[a-z]+)(?:\[(?P<start>(?:-?\d+)?):(?P<stop>(?:-?\d+)?)\])?)?$"
_FACTORY = re.compile(r"^(?P<name>(?P<path>.+?\.py):(?P<factory>[A-Za-z_]\w*))" + _SPLIT)
_PATTERN = re.compile(r"^(?P<name>[a-z0-9-]+)(?::(?P<path>.+?))?" + _SPLIT)


@dataclass(frozen=True)
class DataSource:
    """A parsed data source; `split` and the slice may be missing.

    Attributes
    ----------
    options:
        How recordings of an event camera become frames, such as "frames=10,down=2".
    factory:
        The function in a file of the user's that returns the data; `name` is FILE.py:FACTORY then.
    """

    name: str
    path: Path | None
    split: str | None
    start: int | None
    stop: int | None
    factory: str | None = None
    options: str = ""

    @property
    def base(self) -> str:
        """The source without split and slice."""
        whole = self.path is None or self.factory is not None
        options = self.options and f",{self.options}"
        return self.name if whole else f"{self.name}:{self.path}{options}"


def parse_source(text: str) -> DataSource:
    """Parse a data source.

    Raises
    ------
    DataError
        If the text does not follow the grammar, or the name or split is unknown.
    """
    match = _FACTORY.match(text) or _PATTERN.match(text)
    factory = match and match.groupdict().get("factory")
    known = {*SOURCES, *EVENT_SOURCES, *BOX_SOURCES}
    if match is None or not (factory or match["name"] in known):
        raise DataError(
            "not a data source",
            node=text,
            allowed=FORMS,
            remedy="a split and a slice may follow: digits@test[:100]",
        )
    splits = voc.SPLITS if match["name"] in BOX_SOURCES else SPLITS
    if match["split"] is not None and match["split"] not in splits:
        raise DataError("no such split", node=text, found=match["split"], allowed=", ".join(splits))
    path, options = match["path"], ""
    if match["name"] in EVENT_SOURCES and path:
        parts = OPTIONS.match(path)
        assert parts is not None
        path, options = parts["path"], parts["options"].removeprefix(",")
    return DataSource(
        match["name"],
        Path(path) if path else None,
        match["split"],
        int(match["start"]) if match["start"] else None,
        int(match["stop"]) if match["stop"] else None,
        factory,
        options,
    )


def open_split(text: str, split: str | None = None) -> Dataset:
    """Load a data source; a split in `text` wins over `split`, and `test` is the default.

    Raises
    ------
    DataError
        If the source is not there, is malformed or the slice is empty.
    """
    source = parse_source(text)
    if source.name in BOX_SOURCES:
        raise DataError(
            "these data are boxes, for detectors",
            node=text,
            allowed=", ".join([*SOURCES, *EVENT_SOURCES]),
            remedy="`spikeport detector train` and `evaluate` take them",
        )
    chosen = source.split or split or "test"
    if source.factory is not None:
        dataset = _of_factory(source, chosen)
    else:
        with _readable(text):
            if source.name in EVENT_SOURCES:
                dataset = EVENT_SOURCES[source.name](source.path, source.options, chosen)
            else:
                dataset = SOURCES[source.name](source.path, chosen)
    return dataset.take(*_part(source, text, chosen, len(dataset)))


def _of_factory(source: DataSource, split: str) -> Dataset:
    """What a function of the user's returns, which may have a parameter `split`."""
    code = load_source(str(source.path))
    assert source.factory is not None
    takes_split = "split" in code.parameters(source.factory)
    if source.split is not None and not takes_split:
        raise DataError(
            "the factory has no parameter `split`",
            node=source.name,
            found=f"@{source.split}",
            remedy=f"leave @{source.split} out, or write def {source.factory}(split)",
        )
    made = code.call(source.factory, **({"split": split} if takes_split else {}))
    with user_code("the data cannot be read", source.name, home_of(made)):
        return labelled(made, source.name)


def open_boxes(text: str, size: Size, split: str | None = None) -> BoxDataset:
    """Load a source of images with boxes, scaled to fit into `size`; splits as in `open_split`.

    Raises
    ------
    DataError
        If the source has no boxes, is not there, is malformed or the slice is empty.
    """
    source = _box_source(text)
    chosen = source.split or split or "test"
    load, _ = BOX_SOURCES[source.name]
    with _readable(text):
        dataset = load(source.path, chosen, size)
    return dataset.take(*_part(source, text, chosen, len(dataset)))


def box_splits(text: str) -> list[str]:
    """The splits that a source of images with boxes has; raises DataError as `open_boxes`."""
    source = _box_source(text)
    _, list_splits = BOX_SOURCES[source.name]
    with _readable(text):
        return list_splits(source.path)


@contextmanager
def _readable(text: str) -> Iterator[None]:
    """Raise DataError for what the system refuses: a folder without permission, a damaged disk."""
    try:
        yield
    except OSError as error:
        raise DataError("the data cannot be read", node=text, found=error) from error


def _box_source(text: str) -> DataSource:
    source = parse_source(text)
    if source.name not in BOX_SOURCES:
        raise DataError(
            "a detector needs images with boxes",
            node=text,
            allowed="voc:PATH, or shapes, which are drawn on the spot",
        )
    return source


def _part(source: DataSource, text: str, split: str, count: int) -> tuple[slice, str]:
    """Which of `count` samples are asked for, and what they are called."""
    name = f"{source.base}@{split}"
    if source.start is None and source.stop is None:
        return slice(0, count), name
    start = source.start or 0
    stop = count if source.stop is None else source.stop
    start, stop = (i + count if i < 0 else i for i in (start, stop))  # as in Python
    if start < 0:
        raise DataError(
            "the slice starts before the first sample", node=text, found=f"{count} samples"
        )
    if not start < min(stop, count):
        raise DataError("the slice is empty", node=text, found=f"{count} samples")
    if stop > count:
        raise DataError(
            "the slice ends behind the last sample", node=text, found=f"{count} samples"
        )
    return slice(start, stop), f"{name}[{start}:{stop}]"
