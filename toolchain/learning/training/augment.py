"""Random changes of training images, on uint8 batches, from one seeded generator.

Applied in this order, as the official QCFS and NQ code does: `crop` (4 pixels of black around,
then a random window of the old size), `flip` (left to right, half of the images),
`autoaugment` (`autoaugment.py`), and `cutout` (a 16x16 square set to 0, its middle anywhere;
DeVries & Taylor, 2017): behind normalisation, or, as `cutout-black`, before it (CASC's code).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import DataError
from toolchain.learning.training.autoaugment import autoaugment

AUGMENTATIONS = ("crop", "flip", "autoaugment", "cutout-black", "cutout")
CROP_MARGIN = 4
CUTOUT_SIDE = 16


def check_augmentations(names: Sequence[str], sample_shape: tuple[int, ...], pixels: bool) -> None:
    """Raise DataError for an unknown name, or for samples that are not uint8 images."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise DataError("no such augmentation", node=name, allowed=", ".join(AUGMENTATIONS))
    if names and (len(sample_shape) != 3 or not pixels or sample_shape[0] not in (1, 3)):
        raise DataError(
            "augmentation is for grey or RGB pixel images",
            node=", ".join(names),
            found=f"samples of {sample_shape}",
            remedy="leave augment= out",
        )


def augment_pixels(images: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Change uint8 images (N, C, H, W); returns new ones."""
    if "crop" in names:
        images = _crop(images, rng)
    if "flip" in names:
        flipped = torch.from_numpy(rng.random(len(images)) < 0.5)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    if "autoaugment" in names:
        images = torch.from_numpy(autoaugment(images.numpy(), rng))
    if "cutout-black" in names:
        images = _cutout(images, rng)
    return images


def augment_normalised(images: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Change normalised images, float (N, C, H, W); returns new ones."""
    return _cutout(images, rng) if "cutout" in names else images


def _cutout(images: Tensor, rng: np.random.Generator) -> Tensor:
    height, width = images.shape[-2:]
    rows = _near(torch.from_numpy(rng.integers(0, height, len(images))), height)
    columns = _near(torch.from_numpy(rng.integers(0, width, len(images))), width)
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(hole, 0)


def _near(centres: Tensor, size: int) -> Tensor:
    """(N, size) True within half a cutout side of each centre."""
    offset = torch.arange(size)[None] - centres[:, None]
    return (offset >= -CUTOUT_SIDE // 2) & (offset < CUTOUT_SIDE // 2)


def _crop(images: Tensor, rng: np.random.Generator) -> Tensor:
    count, channels, height, width = images.shape
    padded = F.pad(images, (CROP_MARGIN,) * 4)
    top = torch.from_numpy(rng.integers(0, 2 * CROP_MARGIN + 1, count))
    left = torch.from_numpy(rng.integers(0, 2 * CROP_MARGIN + 1, count))
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    return padded[
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows,
        columns,
    ]
