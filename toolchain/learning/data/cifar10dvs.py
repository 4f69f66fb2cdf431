"""CIFAR10-DVS: 10,000 images of CIFAR-10 that moved on a screen in front of a DVS128.

Li et al., "CIFAR10-DVS: An Event-Stream Dataset for Object Classification" (Frontiers in
Neuroscience 2017). A folder for each class has files of AEDAT 2.0 as published, or what others made
of them (AEDAT 4, arrays). The camera was turned by a quarter: events of AEDAT 2.0 are turned back,
so that images are upright; those of other files stay as they are.

No split is published. Here, as is usual, the first nine tenths of each class are for training, by
the number at the end of the files' names.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from toolchain.errors import DataError
from toolchain.learning.data.aedat import DVS128
from toolchain.learning.data.camera_events import Events
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.event_files import READERS, read_events
from toolchain.learning.data.events import Recorded, folder_of, framed, of_sensor
from toolchain.learning.data.folders import alternating

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
TRAIN = 9
"""Of ten files."""


def load(path: Path | None, options: str, split: str) -> Dataset:
    """The `train` or `test` split, counts (N, T, C, H, W).

    Raises
    ------
    DataError
        If a class is missing, a file is damaged, or its events do not fit sensor or frames.
    """
    node = f"cifar10dvs:{path}"
    binning, path = of_sensor(options, node, DVS128, "CIFAR10-DVS"), folder_of(path, node)
    chosen: list[PurePosixPath] = []
    for name in CLASSES:
        folder = path / name
        files = [f for f in folder.glob("*") if f.suffix.lower() in READERS]
        if len(files) < 2:
            raise DataError(
                "too few event files for training and test",
                node=str(folder),
                found=len(files),
                allowed=f">= 2 of {', '.join(READERS)}",
                remedy=f"unpack {name}.zip here" if (path / f"{name}.zip").is_file() else None,
            )
        files.sort(key=lambda f: (_number(f), f.name))
        train = min(max(1, len(files) * TRAIN // 10), len(files) - 1)
        part = files[:train] if split == "train" else files[train:]
        chosen += [PurePosixPath(name, f.name) for f in part]
    ordered = alternating(chosen)
    recordings = (
        Recorded(str(file), CLASSES.index(file.parts[-2]), _upright(path / file))
        for file in ordered
    )
    return framed(node, binning, recordings, len(ordered), CLASSES)


def _number(file: Path) -> int:
    found = re.search(r"\d+$", file.stem)
    if found is None:
        raise DataError(
            "a file's name does not end in its number",
            node=str(file),
            allowed="cifar10_cat_0.aedat and so on, which say what is for training",
        )
    return int(found[0])


def _upright(file: Path) -> Events:
    events = read_events(file)
    if file.suffix.lower() != ".aedat":
        return events
    return replace(events, x=events.y, y=DVS128[0] - 1 - events.x)
