"""What was measured of a detector, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import DataError
from toolchain.files import atomic_write
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.evaluation.schema import (
    DetectorOnLava,
    MadeBy,
    OperationsFound,
    Run,
    check_made,
)

DETECTION_VERSION = 1
FILE_NAME = "detection.json"


@dataclass(frozen=True)
class PrecisionRow:
    """Average precision of one network.

    Attributes
    ----------
    network:
        "ANN" or "SNN".
    arithmetic:
        "float", "quantized" (activations only), or "8-bit integer".
    neuron:
        "" for an ANN, else "IF" or "CIF".
    steps:
        Time steps in all, None for an ANN.
    at_half, mean:
        mAP at IoU 0.5, and over 0.5 to 0.95; 0 .. 1.
    """

    network: str
    arithmetic: str
    neuron: str
    steps: int | None
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
class DetectorEvaluation:
    """All that was measured of one trained detector.

    Attributes
    ----------
    run:
        Configuration, kept epoch, hash and history of the checkpoint.
    data, num_images, num_boxes:
        The source with split and slice.
    made_by:
        Command, versions, machine, seconds.
    settle:
        Sleep steps until nothing fires any more, by layer; empty without sleep.
    exactness:
        Of CIF with enough sleep; None otherwise.
    operations:
        See `audit.energy.Operations`; None without a spiking network.
    lava:
        Images, values compared and mismatches of a run on Lava.
    """

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

    @property
    def config(self) -> dict[str, Any]:
        """The training configuration."""
        return self.run["config"]

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        values = {"detection_version": DETECTION_VERSION, **asdict(self)}
        atomic_write(path, (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> DetectorEvaluation:
        """Read what `write` wrote.

        Raises
        ------
        DataError
            If the file is damaged or of another version.
        """
        with as_error(DataError, "damaged evaluation", str(path)):
            values = parse_json(read_text(path))
            version = values.pop("detection_version")
            if version != DETECTION_VERSION:
                raise DataError(
                    "unknown version",
                    node=str(path),
                    found=str(version)[:80],
                    allowed=DETECTION_VERSION,
                )
            found = typed(cls, values)
            check_made(found.made_by)
            config = DetectorConfig.from_dict(found.config).as_dict()
            return replace(found, run={**found.run, "config": config})
