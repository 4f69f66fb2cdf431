"""Random changes of training images and their boxes, from one seeded generator.

`flip`: left to right and, by itself, upside down, half of the images each. `scale`: larger or
smaller and moved, black beyond the edges. `colour`: brighter or darker, more or less contrast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

AUGMENTATIONS = ("flip", "scale", "colour")
ZOOM = (0.7, 1.5)
MOVE = 0.15
"""Largest shift, in sides of the image."""
BRIGHTNESS, CONTRAST = 0.1, (0.7, 1.3)
VISIBLE = 0.3
"""Share of a box that must be left in the image for it to be trained on."""

Truth = tuple[Tensor, Tensor]
"""Corners (B, 4) in pixels of the sample, and classes (B,)."""


def augment(
    images: Tensor, truth: Sequence[Truth], names: Sequence[str], rng: np.random.Generator
) -> tuple[Tensor, list[Truth]]:
    """Changed images, float (N, 3, H, W) with values 0 .. 1, and their boxes."""
    count, (height, width) = len(images), images.shape[-2:]
    flips = rng.random((count, 2)) < 0.5
    zooms = np.exp(rng.uniform(np.log(ZOOM[0]), np.log(ZOOM[1]), count))
    moves = rng.uniform(-MOVE, MOVE, (count, 2))
    gains, offsets = rng.uniform(*CONTRAST, count), rng.uniform(-BRIGHTNESS, BRIGHTNESS, count)
    factor, shift = np.ones((count, 2)), np.zeros((count, 2))
    if "scale" in names:
        factor, shift = factor * zooms[:, None], moves * np.array([width, height])
    if "flip" in names:
        factor = np.where(flips, -factor, factor)
    if "scale" in names or "flip" in names:
        images = _moved(images, factor, shift)
        truth = [_boxes(t, factor[i], shift[i], (width, height)) for i, t in enumerate(truth)]
    if "colour" in names:
        mean = images.mean((1, 2, 3), keepdim=True)
        gain, offset = (torch.from_numpy(v).float()[:, None, None, None] for v in (gains, offsets))
        images = ((images - mean) * gain + mean + offset).clamp(0, 1)
    return images, list(truth)


def _moved(images: Tensor, factor: np.ndarray, shift: np.ndarray) -> Tensor:
    """Images scaled about their middle by (x, y) factors, then shifted by (x, y) pixels."""
    height, width = images.shape[-2:]
    half = np.array([width / 2, height / 2])
    theta = np.zeros((len(images), 2, 3))
    theta[:, 0, 0], theta[:, 1, 1] = 1 / factor[:, 0], 1 / factor[:, 1]
    theta[:, :, 2] = -shift / half / factor
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _boxes(truth: Truth, factor: np.ndarray, shift: np.ndarray, size: tuple[int, int]) -> Truth:
    """The boxes of a scaled and shifted image of (width, height), cut off at its edges."""
    corners, labels = truth
    half = torch.tensor(size, dtype=corners.dtype) / 2
    scale, moved = torch.from_numpy(factor), torch.from_numpy(shift)
    ends = [(corners[:, k : k + 2] - half) * scale + half + moved for k in (0, 2)]
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    limit = 2 * half
    inside = torch.cat([low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)], 1)
    before = (high - low).prod(1)
    left = (inside[:, 2:] - inside[:, :2]).prod(1)
    kept = left >= VISIBLE * before
    return inside[kept], labels[kept]
