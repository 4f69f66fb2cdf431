"""An audit's scorer of detectors: average precision, and images with the same boxes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.learning.data import BoxDataset
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.detections import Detections, detect
from toolchain.learning.detection.geometry import iou
from toolchain.learning.detection.spec import DetectorSpec

SURE = 0.35
"""Score from which a box counts in a comparison of two versions."""
ALIKE = 0.5
"""IoU from which two boxes are the same answer."""


@dataclass(frozen=True)
class DetectorScorer:
    """See `toolchain.audit.scorers.Scorer`.

    Attributes
    ----------
    shapes:
        (C, h, w) of the network's outputs, which lie side by side in what is scored.
    """

    spec: DetectorSpec
    data: BoxDataset
    shapes: tuple[tuple[int, ...], ...]
    score: str = "mAP@0.5"
    has_ground_truth: bool = True

    def describe(self, outputs: np.ndarray) -> dict[str, Any]:
        """Average precision on the first images; there is no simple interval of it."""
        data = self.data.take(slice(0, len(outputs)))
        found = average_precision(self._detections(outputs), data)
        return {
            "accuracy": found.at_half,
            "low": None,
            "high": None,
            "total": len(outputs),
            "mean_average_precision": found.mean,
        }

    def same(self, first: np.ndarray, second: np.ndarray) -> int:
        """Images in which each sure box of one has one of the other: same class, IoU 0.5."""
        a, b = (self._detections(o).above(SURE) for o in (first, second))
        return sum(_alike(a.of_image(i), b.of_image(i)) for i in range(len(first)))

    def _detections(self, outputs: np.ndarray) -> Detections:
        maps: list[Tensor] = []
        start = 0
        for shape in self.shapes:
            part = np.ascontiguousarray(outputs[:, start : start + prod(shape)])
            maps.append(torch.from_numpy(part).double().reshape(-1, *shape))
            start += prod(shape)
        return detect(self.spec, maps, self.data.take(slice(0, len(outputs))))


def _alike(first: Detections, second: Detections) -> bool:
    if len(first) != len(second):
        return False
    overlap = iou(torch.from_numpy(first.corners)[:, None], torch.from_numpy(second.corners)[None])
    matches = (overlap.numpy() >= ALIKE) & (first.label[:, None] == second.label[None])
    return bool(matches.any(0).all() and matches.any(1).all())
