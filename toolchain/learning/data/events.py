"""Folders of event files, `train/<class>/<file>` and `test/<class>/<file>`, as frames.

`events:PATH,frames=10` divides each recording into ten frames; `frames.py` says what else may be
there.
`nmnist:PATH,frames=10` reads N-MNIST as it is published: `Train/<digit>/*.bin` and `Test`, of 34x34
pixels. Classes and order are those of `imagefolder`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.camera_events import Events, Size
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.denoise import supported
from toolchain.learning.data.event_files import READERS, read_events
from toolchain.learning.data.folders import alternating, files_below
from toolchain.learning.data.frames import Binning

NMNIST_SIZE = (34, 34)
NMNIST_FOLDERS = {"train": "Train", "test": "Test"}
_log = logging.getLogger(__name__)


def load(path: Path | None, options: str, split: str) -> Dataset:
    """The `train` or `test` split of a folder of event files, counts (N, T, 2, H, W).

    Raises
    ------
    DataError
        If the path, the split or a class is missing, the binning is not said, a file is damaged, or
        its events do not fit sensor or frames.
    """
    node = f"events:{path}"
    return _load(
        path, node, Binning.parse(options, node), {"train": "train", "test": "test"}[split]
    )


def load_nmnist(path: Path | None, options: str, split: str) -> Dataset:
    """The `train` or `test` split of N-MNIST in a folder; raises DataError as `load`."""
    node = f"nmnist:{path}"
    binning = of_sensor(options, node, NMNIST_SIZE, "N-MNIST")
    return _load(path, node, binning, NMNIST_FOLDERS[split])


def _load(path: Path | None, node: str, binning: Binning, folder: str) -> Dataset:
    path = folder_of(path, node)
    relative = [p.relative_to(path).as_posix() for p in files_below(path, node)]
    files = [PurePosixPath(n) for n in relative if PurePosixPath(n).suffix.lower() in READERS]
    classes = sorted({file.parts[-2] for file in files if len(file.parts) > 1})
    chosen = alternating(
        [file for file in files if len(file.parts) == 3 and file.parts[0] == folder]
    )
    if not chosen:
        raise DataError(
            f"no event files under {folder}/<class>/",
            node=node,
            found=f"{len(files)} event files",
            allowed=", ".join(READERS),
        )
    recordings = (
        Recorded(str(file), classes.index(file.parts[-2]), read_events(path / file))
        for file in chosen
    )
    return framed(node, binning, recordings, len(chosen), classes)


def folder_of(path: Path | None, node: str) -> Path:
    """The folder in which recordings lie; raises DataError if there is none."""
    if path is None or not path.is_dir():
        source = node.partition(":")[0]
        raise DataError("a folder is needed", node=node, remedy=f"{source}:PATH,frames=10")
    return path


class Recorded(NamedTuple):
    """One recording: its name below the source's folder, its class, and its events."""

    name: str
    label: int
    events: Events


def framed(
    node: str,
    binning: Binning,
    recordings: Iterable[Recorded],
    count: int,
    classes: Sequence[str],
) -> Dataset:
    """The frames of `count` recordings, counts (N, T, 2, H, W).

    Raises
    ------
    DataError
        If events of a recording do not fit its sensor or the frames, or sensors differ.
    """
    frames: np.ndarray | None = None
    first: tuple[str, Size] | None = None
    read = kept = 0
    labels = np.empty(count, np.int64)
    for index, (name, label, recorded) in enumerate(recordings):
        where = f"{node}/{name}"
        size = _size_of(recorded, binning, where)
        if first is not None and size != first[1]:
            raise DataError(
                "all recordings must be of one size of sensor",
                node=where,
                found=f"{size[0]}x{size[1]}",
                allowed=f"{first[1][0]}x{first[1][1]}, as {first[0]}",
            )
        first = first or (name, size)
        recorded.check(where, size)
        events = _denoised(recorded, binning, where)
        read += len(recorded.t)
        kept += len(events.t)
        of_one = binning.binned(events, size, where)
        if frames is None:
            frames = np.empty((count, *of_one.shape), np.uint8)
        frames[index], labels[index] = of_one, label
    assert frames is not None
    if kept < read:
        told = "%s: denoise=%d takes out %d of %d events"
        _log.warning(told, node, binning.denoise, read - kept, read)
    silent = int((~frames.any(axis=(2, 3, 4))).sum())
    if silent:
        told = "warning: %s: %d of %d frames have no events"
        _log.warning(told, node, silent, len(frames) * binning.frames)
    return Dataset(node, frames, None, labels, tuple(classes))


def of_sensor(options: str, node: str, size: Size, camera: str) -> Binning:
    """The binning that `options` says, for recordings of a camera of known size.

    Raises
    ------
    DataError
        If it says no binning, or another size.
    """
    binning = Binning.parse(options, node)
    if binning.size not in (None, size):
        raise DataError(f"{camera} has {size[0]}x{size[1]} pixels", node=node, found=binning.size)
    return replace(binning, size=size)


def _denoised(events: Events, binning: Binning, node: str) -> Events:
    """The events that are left of a recording, at least one."""
    if binning.denoise is None:
        return events
    left = events.take(supported(events, binning.denoise))
    if not len(left.t):
        raise DataError(
            "denoise= takes out every event",
            node=node,
            found=f"{len(events.t)} events",
            remedy="a longer time, or no denoise=",
        )
    return left


def _size_of(events: Events, binning: Binning, node: str) -> Size:
    """The sensor's (width, height), which the file or the binning states."""
    if events.size is None and binning.size is None:
        raise DataError(
            "the file does not state the size of the sensor",
            node=node,
            remedy="size=WIDTHxHEIGHT in the data source",
        )
    if None not in (events.size, binning.size) and events.size != binning.size:
        raise DataError(
            "the recording is of another sensor", node=node, found=events.size, allowed=binning.size
        )
    size = events.size or binning.size
    assert size is not None
    return size
