"""Cells of a single-scale detector and the boxes that they stand for.

Cell (y, x) has its middle at ((x + 1/2) * stride, (y + 1/2) * stride) pixels. Its four values v
say how far the sides of its box lie from there, left, top, right and bottom:
`stride * exp(v)` pixels (FCOS; Tian et al., 2019, with the stride in place of a learned scale), v
up to `LARGEST`.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 8.0
"""e^8 = 2981 cells: farther than the edge of any image, where boxes are cut off anyway. Without an
end a network that diverges reaches infinity, whose overlap with anything is not a number."""


def middles(height: int, width: int, stride: int, like: Tensor) -> Tensor:
    """(x, y) of the middles of all cells, row by row: (h * w, 2) pixels, of the type of `like`."""
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) * stride
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) * stride
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2)


def decode(sides: Tensor, stride: int) -> Tensor:
    """Corners (N, h * w, 4), left, top, right, bottom in pixels, of a map of sides (N, 4, h, w)."""
    height, width = sides.shape[-2:]
    centre = middles(height, width, stride, sides)
    reach = stride * sides.flatten(2).transpose(1, 2).clamp(max=LARGEST).exp()
    return torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], -1)


def areas(corners: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4)."""
    return (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and of union of boxes (..., 4), broadcast against each other."""
    shared = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = shared.clamp(min=0).prod(-1)
    return intersection, areas(a) + areas(b) - intersection


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4); 0 where both are empty."""
    intersection, union = overlaps(a, b)
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the common hull that neither covers (Rezatofighi et al., 2019)."""
    intersection, union = overlaps(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    tiny = torch.finfo(a.dtype).tiny
    return intersection / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
