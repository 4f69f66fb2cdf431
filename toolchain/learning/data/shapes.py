"""Drawn images with boxes, made on the spot: discs, squares and triangles on a noisy ground.

For trying detectors without any data set. The same images for everyone: all random numbers come
from a seed by split. Each image is 192x128 pixels and holds 1 to 4 shapes that do not overlap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.boxes import BoxDataset, Boxes, Size, fitted

if TYPE_CHECKING:
    from PIL import Image

Corners = tuple[int, int, int, int]
CLASS_NAMES = ("disc", "square", "triangle")
COUNTS = {"train": 160, "val": 40, "test": 40}
STORED = (128, 192)
"""(height, width)."""
SIDES = (22, 56)
MOST_SHAPES = 4
TRIES = 20
GROUND, NOISE = 96, 14
"""Mean grey of the ground, and the deviation of its noise."""


def splits(path: Path | None) -> list[str]:
    """The splits there are; raises DataError if a path is given."""
    if path is not None:
        raise DataError("shapes are drawn, not read", node=f"shapes:{path}", allowed="shapes")
    return list(COUNTS)


def load(path: Path | None, split: str, size: Size) -> BoxDataset:
    """A split with its images scaled to fit into `size`.

    Raises
    ------
    DataError
        If a path is given, or there is no such split.
    """
    from PIL import Image

    if split not in splits(path):
        raise DataError("no such split", node="shapes", found=split, allowed=", ".join(COUNTS))
    rng = np.random.default_rng(list(COUNTS).index(split))
    count, (height, width) = COUNTS[split], fitted(STORED, size)
    samples = np.zeros((count, 3, *size), np.uint8)
    rows: list[tuple[int, Corners, int]] = []
    for index in range(count):
        image, found = _draw(rng)
        rows += [(index, corners, label) for corners, label in found]
        scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        samples[index, :, :height, :width] = np.asarray(scaled).transpose(2, 0, 1)
    boxes = Boxes(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.int64),
        np.zeros(len(rows), bool),
    )
    scale = (height / STORED[0], width / STORED[1])
    return BoxDataset(
        "shapes",
        samples,
        np.full((count, 2), STORED),
        np.full((count, 2), scale),
        boxes,
        CLASS_NAMES,
        tuple(f"{split}-{i}" for i in range(count)),
    )


def _draw(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[Corners, int]]]:
    """An image, and the corners and class of each shape in it."""
    from PIL import Image, ImageDraw

    height, width = STORED
    ground = rng.normal(GROUND, NOISE, (height, width, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    found: list[tuple[Corners, int]] = []
    wanted = int(rng.integers(1, MOST_SHAPES + 1))
    for _ in range(TRIES):
        side = int(rng.integers(*SIDES))
        left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        corners = (left, top, left + side, top + side)
        label = int(rng.integers(len(CLASS_NAMES)))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        if len(found) == wanted or any(_touch(corners, other) for other, _ in found):
            continue
        # PIL's last pixel is inside.
        right, bottom = left + side - 1, top + side - 1
        if label == 0:
            pen.ellipse((left, top, right, bottom), fill=colour)
        elif label == 1:
            pen.rectangle((left, top, right, bottom), fill=colour)
        else:
            pen.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=colour)
        found.append((corners, label))
    return image, found


def _touch(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
