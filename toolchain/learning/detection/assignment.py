"""Which cells answer for which box in training: task-aligned assignment (TOOD; Feng et al., 2021).

A cell may answer for a box whose inside holds its middle. Of those, each box takes the `TAKEN`
cells with the largest `score^ALPHA * IoU^BETA` under the present network; a cell taken twice stays
with the box it overlaps most. The score it is trained towards is that measure, scaled so that the
best cell of a box gets the box's best IoU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolchain.learning.detection.geometry import iou

TAKEN = 10
ALPHA, BETA = 0.5, 6.0
"""TOOD: 13 cells with alpha 1 and beta 6; single-stage successors (PP-YOLOE, YOLOv8) 10 to 13 with
alpha 0.5 to 1."""
REACH = 1.0
"""A box smaller than this many cells on a side is taken for one that large."""


@dataclass(frozen=True)
class Assignment:
    """What the cells of one image are trained towards.

    Attributes
    ----------
    scores:
        float (cells, K).
    cells, corners, weights:
        Cells that answer for a box, int64 (A,), its corners (A, 4), and how much each counts (A,).
    """

    scores: Tensor
    cells: Tensor
    corners: Tensor
    weights: Tensor


@torch.no_grad()
def assign(
    centre: Tensor,
    stride: int,
    predicted: tuple[Tensor, Tensor],
    corners: Tensor,
    labels: Tensor,
) -> Assignment:
    """Assign the boxes of one image.

    Parameters
    ----------
    centre:
        Middles of all cells, (cells, 2).
    predicted:
        Scores (cells, K) behind the sigmoid, and corners (cells, 4), of the present network.
    corners, labels:
        True boxes (B, 4) and their classes, int64 (B,).
    """
    scores, boxes = predicted
    targets = torch.zeros_like(scores)
    if not len(labels):
        nothing = torch.zeros(0, dtype=torch.int64)
        return Assignment(targets, nothing, boxes[nothing], scores[nothing, 0])
    overlap = iou(corners[:, None], boxes[None])
    measure = scores.T[labels] ** ALPHA * overlap**BETA
    # Cells outside a box are no candidates; those inside are, however badly they predict.
    measure = torch.where(_inside(centre, stride, corners), measure + 1e-12, 0.0)
    best, taken = measure.topk(min(TAKEN, measure.shape[1]), dim=1)
    chosen = torch.zeros_like(measure, dtype=torch.bool).scatter_(1, taken, best > 0)
    # A cell answers for one box: that of the largest overlap, the first of equal ones.
    owner = torch.where(chosen, overlap + 1e-9, -1.0).argmax(0)
    cells = chosen.any(0).nonzero()[:, 0]
    owner = owner[cells]
    of_cell = measure[owner, cells]
    largest = torch.zeros(len(labels), dtype=measure.dtype).scatter_reduce(
        0, owner, of_cell, "amax"
    )
    reached = torch.zeros(len(labels), dtype=measure.dtype).scatter_reduce(
        0, owner, overlap[owner, cells], "amax"
    )
    weights = of_cell / largest[owner] * reached[owner]
    targets[cells, labels[owner]] = weights
    return Assignment(targets, cells, corners[owner], weights)


def _inside(centre: Tensor, stride: int, corners: Tensor) -> Tensor:
    """Whether each cell's middle lies in each box, (B, cells); small boxes are widened."""
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    half = ((corners[:, 2:] - corners[:, :2]) / 2).clamp(min=REACH * stride / 2)
    distance = (centre[None] - middle[:, None]).abs()
    return (distance <= half[:, None]).all(-1)
