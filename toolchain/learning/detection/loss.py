"""What training minimises: binary cross-entropy of scores and generalized IoU of boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.learning.detection.assignment import assign
from toolchain.learning.detection.geometry import decode, generalized_iou, middles

BOX_WEIGHT = 2.0
"""Of the box term beside the scores' (TOOD, section 4.1)."""


def detection_loss(
    maps: tuple[Tensor, Tensor],
    stride: int,
    truth: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """Mean loss of a batch, by the sum of the target scores.

    Parameters
    ----------
    maps:
        Scores (N, K, h, w) before the sigmoid, and sides (N, 4, h, w).
    truth:
        Corners (B, 4) in pixels of the sample and classes, int64 (B,), of each image.
    """
    scores = maps[0].float().flatten(2).transpose(1, 2)
    sides = maps[1].float()
    corners = decode(sides, stride)
    centre = middles(sides.shape[-2], sides.shape[-1], stride, sides)
    probabilities = scores.detach().sigmoid()
    total = scores.new_zeros(())
    weight = scores.new_zeros(())
    for index, (boxes, labels) in enumerate(truth):
        predicted = (probabilities[index], corners[index].detach())
        found = assign(centre, stride, predicted, boxes, labels)
        total = total + F.binary_cross_entropy_with_logits(
            scores[index], found.scores, reduction="sum"
        )
        apart = 1 - generalized_iou(corners[index][found.cells], found.corners)
        total = total + BOX_WEIGHT * (apart * found.weights).sum()
        weight = weight + found.weights.sum()
    return total / torch.clamp(weight, min=1.0)
