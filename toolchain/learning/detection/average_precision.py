"""Mean average precision of detections, by pycocotools (the COCO challenge's own evaluation)."""

from __future__ import annotations

import contextlib
import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolchain.learning.data.boxes import BoxDataset
from toolchain.learning.detection.detections import Detections

HALF = 0.5
"""IoU of PASCAL VOC's criterion."""


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's measures, 0 .. 1.

    Attributes
    ----------
    at_half:
        mAP at IoU 0.5, over all classes that have boxes.
    mean:
        mAP over IoU 0.5, 0.55, ..., 0.95.
    by_class:
        AP at IoU 0.5 by class name; classes without a box are left out.
    """

    at_half: float
    mean: float
    by_class: dict[str, float]

    def describe(self) -> dict[str, Any]:
        """The attributes by name, as JSON."""
        return asdict(self)


def average_precision(found: Detections, data: BoxDataset) -> AveragePrecision:
    """How good `found` is on `data`; boxes marked difficult count neither way."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = _truth(data)
        truth.createIndex()
        evaluation = COCOeval(truth, _found(found, truth), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU, recall, class, area, most boxes); -1 where a class has no box.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    half = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, HALF))[0])
    by_class = {
        name: float(precision[half, :, index].mean())
        for index, name in enumerate(data.class_names)
        if precision[half, :, index].max() >= 0
    }
    valid = precision[:, :, [i for i, n in enumerate(data.class_names) if n in by_class]]
    return AveragePrecision(float(valid[half].mean()), float(valid.mean()), by_class)


def _truth(data: BoxDataset) -> dict[str, Any]:
    boxes = data.boxes
    wide = boxes.corners[:, 2:] - boxes.corners[:, :2]
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(data))],
        "categories": [{"id": i, "name": n} for i, n in enumerate(data.class_names)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": int(boxes.image[index]),
                "category_id": int(boxes.label[index]),
                "bbox": [*boxes.corners[index, :2].tolist(), *wide[index].tolist()],
                "area": float(wide[index].prod()),
                "iscrowd": int(boxes.difficult[index]),
                "ignore": int(boxes.difficult[index]),
            }
            for index in range(len(boxes))
        ],
    }


def _found(found: Detections, truth: Any) -> Any:
    """As pycocotools takes them: image, left, top, width, height, score, class."""
    from pycocotools.coco import COCO

    rows = np.column_stack(
        [
            found.image,
            found.corners[:, :2],
            found.corners[:, 2:] - found.corners[:, :2],
            found.score,
            found.label,
        ]
    )
    if len(rows):
        return truth.loadRes(rows)
    empty: Any = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
