"""From a detector's maps to boxes, on the host: scores, corners, non-maximum suppression.

The maps are real values; those of an integer program are `scale * accumulator / wake_steps`, so
equal accumulators give equal boxes, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from toolchain.learning.data.boxes import BOX_SIDES, BoxDataset
from toolchain.learning.detection.geometry import decode, iou
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.program.int_program import IntProgram
from toolchain.program.neurons import Readout

MIN_SCORE = 0.01
"""Boxes below are dropped; average precision hardly counts what ranks so low."""
NMS_IOU = 0.6
"""IoU from which the lower of two boxes of one class is dropped (YOLOF's and FCOS's value)."""
MAX_DETECTIONS = 100
"""Boxes kept of an image (COCO's)."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in several images, the best of each image first.

    Attributes
    ----------
    image, label:
        int64 (D,).
    corners:
        float64 (D, 4), left, top, right, bottom in pixels of the stored image.
    score:
        float64 (D,).
    """

    image: np.ndarray
    corners: np.ndarray
    label: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def joined(cls, parts: Sequence[Detections]) -> Detections:
        """All of `parts`, whose images count on."""
        names = [f.name for f in fields(cls)]
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    def above(self, score: float) -> Detections:
        """Those of at least this score."""
        return self._rows(self.score >= score)

    def of_image(self, index: int) -> Detections:
        """Detections in the image at `index`, in their order."""
        return self._rows(self.image == index)

    def _rows(self, rows: np.ndarray) -> Detections:
        return Detections(self.image[rows], self.corners[rows], self.label[rows], self.score[rows])

    def equal(self, other: Detections) -> bool:
        """Whether all of both are the same, bit by bit."""
        names = [f.name for f in fields(self)]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)


def split_maps(outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Score map (N, K, h, w) and side map (N, 4, h, w) of what a detector returns."""
    together = torch.cat(list(outputs), 1)
    return together[:, :-BOX_SIDES], together[:, -BOX_SIDES:]


def real_outputs(program: IntProgram, accumulators: Mapping[str, np.ndarray]) -> list[Tensor]:
    """What the readouts stand for, float64 (N, ...) each, in the order of the outputs.

    Divided by the wake steps only: asleep neither input nor bias comes in (docs/METHODS.md,
    "Layers in both").
    """
    values = []
    for population in program.readouts:
        assert isinstance(population.neuron, Readout)
        unit = population.neuron.scale / program.schedule.wake_steps
        # In one memory order, since torch's exponentials may round otherwise in another.
        values.append(torch.from_numpy(np.ascontiguousarray(accumulators[population.name]) * unit))
    return values


@torch.no_grad()
def detect(spec: DetectorSpec, outputs: Sequence[Tensor], data: BoxDataset) -> Detections:
    """Boxes in the images of `data` for a network's maps, (N, ..., h, w) each.

    They are cut off at the edges of their image.
    """
    scores, sides = split_maps([o.double() for o in outputs])
    scores = scores.flatten(2).transpose(1, 2).sigmoid()
    corners = decode(sides, spec.stride)
    parts = []
    for index in range(len(data)):
        found = _of_image(scores[index], corners[index])
        height, width = (float(v) for v in data.sizes[index])
        vertical, horizontal = data.scales[index]
        placed = found[0].numpy() / np.array([horizontal, vertical, horizontal, vertical])
        placed = np.clip(placed, 0.0, np.array([width, height, width, height]))
        image = np.full(len(placed), index, np.int64)
        parts.append(Detections(image, placed, found[1].numpy(), found[2].numpy()))
    return Detections.joined(parts)


def _of_image(scores: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (D, 4), labels and scores (D,) for scores (cells, K) and corners (cells, 4)."""
    cells, labels = (scores >= MIN_SCORE).nonzero(as_tuple=True)
    values = scores[cells, labels]
    # Stable, so that equal scores stay in the order of cells and classes.
    order = torch.argsort(values, descending=True, stable=True)
    cells, labels, values = cells[order], labels[order], values[order]
    boxes = corners[cells]
    kept = suppress(boxes, labels)[:MAX_DETECTIONS]
    return boxes[kept], labels[kept], values[kept]


def suppress(corners: Tensor, labels: Tensor) -> Tensor:
    """Indices of boxes (D, 4), the best first, that overlap no better one of their class."""
    same = (iou(corners[:, None], corners[None]) >= NMS_IOU) & (labels[:, None] == labels[None])
    alive = torch.ones(len(labels), dtype=torch.bool)
    for index in range(len(labels)):
        if alive[index]:
            alive[index + 1 :] &= ~same[index, index + 1 :]
    return alive.nonzero()[:, 0]
