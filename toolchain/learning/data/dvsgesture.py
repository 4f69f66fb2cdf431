"""DVS128 Gesture: eleven gestures of 29 people, recorded by a DVS128.

Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System" (CVPR 2017). Both forms in
which people have it are read:

- as published: recordings of AEDAT 3.1, `<trial>.aedat`, each with several gestures, whose class (1
  to 11), begin and end in microseconds stand in `<trial>_labels.csv`; `trials_to_train.txt` and
  `trials_to_test.txt` name the recordings of each split. An event at a gesture's end is not in it.
- as the library tonic stores it: `ibmGestureTrain/<trial>/<class, 0 to 10>.npy` and
  `ibmGestureTest`, arrays (E, 4) of x, y, polarity and time in milliseconds.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from toolchain.documents import as_error, read_text
from toolchain.errors import DataError
from toolchain.learning.data.aedat import DVS128
from toolchain.learning.data.camera_events import Events
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.event_files import read_events
from toolchain.learning.data.events import Recorded, folder_of, framed, of_sensor

GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
"""By class, as in the published README."""
TONIC = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
COLUMNS = ["class", "startTime_usec", "endTime_usec"]
_log = logging.getLogger(__name__)
Window = tuple[int, int, int]
"""Class, begin and end of a gesture."""


def load(path: Path | None, options: str, split: str) -> Dataset:
    """The published `train` or `test` split, a sample for each gesture, counts (N, T, 2, H, W).

    Raises
    ------
    DataError
        If a file is missing or damaged, a label is none, or events do not fit sensor or frames.
    """
    node = f"dvsgesture:{path}"
    binning, path = of_sensor(options, node, DVS128, "DVS128 Gesture"), folder_of(path, node)
    listed, stored = path / f"trials_to_{split}.txt", path / TONIC[split]
    if listed.is_file():
        with as_error(DataError, "not a readable list of recordings", str(listed)):
            trials = read_text(listed).split()
        windows = {trial: _windows(path / f"{Path(trial).stem}_labels.csv") for trial in trials}
        count = sum(len(of_one) for of_one in windows.values())
        recordings = _cut(path, windows)
    elif stored.is_dir():
        files = sorted(stored.glob("*/*.npy"), key=lambda f: (f.parent.name, len(f.stem), f.stem))
        count, recordings = len(files), _stored(stored, files)
    else:
        raise DataError(
            "not a folder of DVS128 Gesture",
            node=node,
            allowed=f"{listed.name} with its recordings, or {stored.name}",
            remedy="events:PATH,frames=T reads train/<class>/<file> and test/<class>/<file>",
        )
    if not count:
        raise DataError("no recordings", node=f"{node}@{split}")
    return framed(node, binning, recordings, count, GESTURES)


def _windows(path: Path) -> list[Window]:
    """The gestures of a recording, as its table of labels says."""
    with as_error(DataError, "not a readable table of labels", str(path)):
        head, *rows = csv.reader(read_text(path).splitlines())
        found = [tuple(int(cell) for cell in row) for row in rows if row]
    if [name.strip() for name in head] != COLUMNS or any(len(row) != 3 for row in found):
        raise DataError(
            "not a table of labels", node=str(path), found=",".join(head), allowed=",".join(COLUMNS)
        )
    windows = [(kind, begin, end) for kind, begin, end in found]
    for kind, begin, end in windows:
        if not (1 <= kind <= len(GESTURES) and begin < end):
            raise DataError(
                "no gesture",
                node=str(path),
                found=f"class {kind}, {begin} .. {end} us",
                allowed=f"classes 1 .. {len(GESTURES)}, and an end behind the begin",
            )
    for (_, _, end), (kind, begin, _) in pairwise(windows):
        if end > begin:
            told = "warning: %s: a gesture ends at %d us, behind the begin of class %d at %d us"
            _log.warning(told, path, end, kind, begin)
    return windows


def _cut(folder: Path, windows: dict[str, list[Window]]) -> Iterator[Recorded]:
    """The events of each gesture."""
    for trial, of_one in windows.items():
        file = folder / trial
        if not file.is_file():
            raise DataError("a recording is missing", node=str(file))
        events = read_events(file)
        events.check(str(file), DVS128)
        for number, (kind, begin, end) in enumerate(of_one):
            first, last = np.searchsorted(events.t, (begin, end))
            name = f"{trial}[{number}]"
            if first == last:
                raise DataError(
                    "a gesture has no events",
                    node=str(file),
                    found=f"class {kind}, {begin} .. {end} us",
                    allowed=f"{events.t[0]} .. {events.t[-1]} us, the recording's times",
                )
            yield Recorded(name, kind - 1, events.take(slice(first, last)))


def _stored(folder: Path, files: list[Path]) -> Iterator[Recorded]:
    """The arrays that tonic stores."""
    labels = {str(number): number for number in range(len(GESTURES))}
    for file in files:
        if file.stem not in labels:
            raise DataError(
                "the name is no class",
                node=str(file),
                found=file.stem,
                allowed=f"0 .. {len(GESTURES) - 1}",
            )
        yield Recorded(str(file.relative_to(folder)), labels[file.stem], _of_array(file))


def _of_array(path: Path) -> Events:
    """Events of an array (E, 4) of x, y, polarity and milliseconds, to the nearest microsecond."""
    with as_error(DataError, "not a readable file of arrays", str(path)):
        array = np.load(path, allow_pickle=False)
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf":
        raise DataError(
            "not an array of x, y, polarity and time",
            node=str(path),
            found=f"{array.dtype} {array.shape}",
            allowed="numbers (E, 4)",
        )
    x, y, p, t = array.T
    if not np.isfinite(array).all() or (np.rint(array[:, :3]) != array[:, :3]).any():
        raise DataError("x, y and polarity are whole numbers", node=str(path))
    if not np.isin(p, (0, 1)).all():
        raise DataError("a polarity is 0 or 1", node=str(path), found=f"{p.min()} .. {p.max()}")
    microseconds = np.rint(t.astype(np.float64) * 1000).astype(np.int64)
    return Events(microseconds, x.astype(np.int64), y.astype(np.int64), p == 1, DVS128)
