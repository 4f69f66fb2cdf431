"""The grammar of data sources: `NAME[:PATH][@SPLIT[[START:STOP]]]`.

Examples: `digits`, `digits@test[:50]`, `imagefolder:photos.zip@train`, `npz:set.npz@test[10:20]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolchain.data import cifar, digits, imagefolder, mnist, npz
from toolchain.data.dataset import Dataset
from toolchain.errors import DataError

Loader = Callable[[Path | None, str], Dataset]

SOURCES: dict[str, Loader] = {
    "cifar10": cifar.load_cifar10,
    "cifar100": cifar.load_cifar100,
    "digits": digits.load,
    "fashion-mnist": mnist.load_fashion_mnist,
    "imagefolder": imagefolder.load,
    "mnist": mnist.load_mnist,
    "npz": npz.load,
}
FORMS = (
    "digits, fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, cifar100:DIR, imagefolder:PATH, npz:PATH"
)
SPLITS = ("train", "test")
_PATTERN = re.compile(
    r"^(?P<name>[a-z0-9-]+)(?::(?P<path>.+?))?"
    r"(?:@(?P<split>[a-z]+)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?)?$"
)


@dataclass(frozen=True)
class DataSource:
    """A parsed data source; `split` and the slice may be missing."""

    name: str
    path: Path | None
    split: str | None
    start: int | None
    stop: int | None

    @property
    def base(self) -> str:
        """The source without split and slice."""
        return self.name if self.path is None else f"{self.name}:{self.path}"


def parse_source(text: str) -> DataSource:
    """Parse a data source.

    Raises
    ------
    DataError
        If the text does not follow the grammar, or the name or split is unknown.
    """
    match = _PATTERN.match(text)
    if match is None or match["name"] not in SOURCES:
        raise DataError(
            "not a data source",
            node=text,
            allowed=FORMS,
            remedy="a split and a slice may follow: digits@test[:100]",
        )
    if match["split"] is not None and match["split"] not in SPLITS:
        raise DataError("no such split", node=text, found=match["split"], allowed="train, test")
    return DataSource(
        match["name"],
        Path(match["path"]) if match["path"] else None,
        match["split"],
        int(match["start"]) if match["start"] else None,
        int(match["stop"]) if match["stop"] else None,
    )


def open_split(text: str, split: str | None = None) -> Dataset:
    """Load a data source; a split in `text` wins over `split`, and `test` is the default.

    Raises
    ------
    DataError
        If the source is not there, is malformed or the slice is empty.
    """
    source = parse_source(text)
    chosen = source.split or split or "test"
    dataset = SOURCES[source.name](source.path, chosen)
    name = f"{source.base}@{chosen}"
    if source.start is not None or source.stop is not None:
        start = source.start or 0
        stop = len(dataset) if source.stop is None else source.stop
        if not start < min(stop, len(dataset)):
            raise DataError("the slice is empty", node=text, found=f"{len(dataset)} samples")
        if stop > len(dataset):
            raise DataError(
                "the slice ends behind the last sample", node=text, found=f"{len(dataset)} samples"
            )
        return dataset.take(slice(start, stop), f"{name}[{start}:{stop}]")
    return dataset.take(slice(None), name)
