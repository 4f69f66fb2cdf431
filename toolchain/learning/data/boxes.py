"""A split of an image set with boxes, every image scaled to a detector's input size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Samples

if TYPE_CHECKING:
    from typing_extensions import Self

BOX_SIDES = 4
"""Left, top, right, bottom."""
Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of several images, one row each, in the order of the images.

    Attributes
    ----------
    image:
        Index of the image, int64 (M,).
    corners:
        (left, top, right, bottom) in pixels of the stored image, float64 (M, 4); the corner of
        the image is (0, 0), and the right and lower edge lie outside the box.
    label:
        Index of the class, int64 (M,).
    difficult:
        Whether annotators marked it as hard to tell; such are trained on, and neither asked for
        nor held against a detector in evaluation. bool (M,).
    """

    image: np.ndarray
    corners: np.ndarray
    label: np.ndarray
    difficult: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class BoxDataset(Samples):
    """Images scaled to one size, and the boxes in them.

    Attributes
    ----------
    samples:
        uint8 (N, 3, H, W): each image scaled to fit, its corner at (0, 0), black below or beside.
    sizes:
        (height, width) of the stored images, int64 (N, 2).
    scales:
        (vertical, horizontal) pixels of a sample a pixel of the stored image, float64 (N, 2).
    boxes:
        In pixels of the stored images.
    class_names:
        One name a class.
    image_names:
        One name per image.
    """

    pixel_max: int | None = field(default=255, init=False)
    sizes: np.ndarray
    scales: np.ndarray
    boxes: Boxes
    class_names: tuple[str, ...]
    image_names: tuple[str, ...]

    def placed(self) -> np.ndarray:
        """Corners of the boxes in pixels of the samples, float64 (M, 4)."""
        vertical, horizontal = self.scales[self.boxes.image].T
        factors = np.stack([horizontal, vertical, horizontal, vertical], axis=1)
        placed: np.ndarray = self.boxes.corners * factors
        return placed

    def _hashed(self) -> tuple[np.ndarray, ...]:
        boxes = self.boxes
        return (self.samples, boxes.image, boxes.corners, boxes.label, boxes.difficult)

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Self:
        """The images at `index`, none of them twice, with their boxes."""
        chosen, boxes = np.arange(len(self))[index], self.boxes
        place = np.full(len(self), -1)
        place[chosen] = np.arange(len(chosen))
        image = place[boxes.image]
        rows = image >= 0
        return replace(
            self,
            name=name or self.name,
            samples=self.samples[index],
            sizes=self.sizes[index],
            scales=self.scales[index],
            boxes=Boxes(image[rows], boxes.corners[rows], boxes.label[rows], boxes.difficult[rows]),
            image_names=tuple(self.image_names[i] for i in chosen),
        )

    def check_classes(self, class_names: tuple[str, ...]) -> None:
        """Check that a detector for `class_names` was made for these boxes.

        Raises
        ------
        DataError
            If the classes differ, in number or name.
        """
        if self.class_names != class_names:
            raise DataError(
                "the data have other classes than the network",
                node=self.name,
                found=f"{len(self.class_names)}: {', '.join(self.class_names)}",
                allowed=f"{len(class_names)}: {', '.join(class_names)}",
                remedy="choose the data the network was trained for, or train on these",
            )


def fitted(stored: Size, size: Size) -> Size:
    """(height, width) at which an image of `stored` pixels fits into `size`, its shape kept."""
    factor = min(size[0] / stored[0], size[1] / stored[1])
    height, width = (max(1, round(side * factor)) for side in stored)
    return (min(height, size[0]), min(width, size[1]))
