"""What was measured of a detector, as a JSON file."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.evaluation.results import Document, Row
from toolchain.learning.evaluation.schema import DetectorOnLava, MadeBy, OperationsFound, Run

FILE_NAME = "detection.json"


@dataclass(frozen=True)
class PrecisionRow(Row):
    """Average precision of one network.

    Attributes
    ----------
    at_half, mean:
        mAP at IoU 0.5, and over 0.5 to 0.95; 0 .. 1.
    """

    at_half: float
    mean: float
    by_class: dict[str, float]


@dataclass(frozen=True)
class Exactness:
    """Settled outputs against those of the quantized network with the same integers.

    Attributes
    ----------
    outputs, differing:
        Accumulators compared, and those that differ.
    images, unequal_images:
        Images, and those whose boxes, labels or scores differ in any bit.
    """

    outputs: int
    differing: int
    images: int
    unequal_images: int


@dataclass(frozen=True)
class DetectorEvaluation(Document):
    """All that was measured of one trained detector.

    Attributes
    ----------
    data, num_images, num_boxes:
        The source with split and slice.
    settle:
        Sleep steps until nothing fires any more, by layer; empty without sleep.
    exactness:
        Of CIF with enough sleep; None otherwise.
    operations:
        See `audit.energy.Operations`; None without a spiking network.
    lava:
        Images, values compared and mismatches of a run on Lava.
    """

    version_name = "detection_version"
    command = "spikeport detector evaluate"
    settings = DetectorConfig

    run: Run
    data: str
    num_images: int
    num_boxes: int
    made_by: MadeBy
    rows: tuple[PrecisionRow, ...]
    settle: dict[str, int]
    exactness: Exactness | None = None
    operations: OperationsFound | None = None
    lava: DetectorOnLava | None = None
