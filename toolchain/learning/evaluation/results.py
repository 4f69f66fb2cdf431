"""An evaluation as a JSON file: what was measured, on what, by which command and versions."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolchain import __version__
from toolchain.accuracy import Correct
from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import DataError
from toolchain.files import atomic_write
from toolchain.learning.evaluation.schema import Counts, Gaps, MadeBy, OnLava, Run, check_made
from toolchain.learning.training.config import TrainConfig

EVALUATION_VERSION = 1
FILE_NAME = "evaluation.json"


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one network.

    Attributes
    ----------
    network:
        "ANN" or "SNN".
    arithmetic:
        "float", or "8-bit integer" and so on.
    neuron:
        "" for an ANN, else "IF", "CIF" or "CIF + sleep".
    steps:
        Time steps, None for an ANN.
    """

    network: str
    arithmetic: str
    neuron: str
    steps: int | None
    accuracy: Correct


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one trained network.

    Attributes
    ----------
    run:
        Configuration, kept epoch, hash and history of the checkpoint.
    data, num_samples:
        The source with split and slice.
    made_by:
        Command, versions, machine, seconds.
    rows:
        Accuracies.
    gaps:
        {"steps": T, "layers": {...}}, see `float_network.LayerGap`; None where not measured.
    counts:
        {"wake_steps", "sleep_steps", "variants": {neuron: {...}}}, see `int_network.CountError`.
    lava:
        Samples, values compared and mismatches of a run on Lava.
    """

    run: Run
    data: str
    num_samples: int
    made_by: MadeBy
    rows: tuple[AccuracyRow, ...]
    gaps: Gaps | None = None
    counts: Counts | None = None
    lava: OnLava | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def config(self) -> dict[str, Any]:
        """The training configuration."""
        return self.run["config"]

    def find(self, **wanted: Any) -> AccuracyRow | None:
        """The first row with these fields, or None."""
        for row in self.rows:
            if all(getattr(row, k) == v for k, v in wanted.items()):
                return row
        return None

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        values = {"evaluation_version": EVALUATION_VERSION, **self.__dict__}
        values["rows"] = [r.__dict__ for r in self.rows]
        atomic_write(path, (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read what `write` wrote.

        Raises
        ------
        DataError
            If the file is missing, damaged or of another version.
        """
        if not path.is_file():
            raise DataError(
                "no such evaluation",
                node=str(path),
                remedy="spikeport evaluate RUN --data SOURCE makes one",
            )
        with as_error(DataError, "damaged evaluation", str(path)):
            values = parse_json(read_text(path))
            version = values.pop("evaluation_version")
            if version != EVALUATION_VERSION:
                raise DataError(
                    "unknown evaluation version",
                    node=str(path),
                    found=str(version)[:80],
                    allowed=EVALUATION_VERSION,
                )
            found = typed(cls, values)
            check_made(found.made_by)
            config = TrainConfig.from_dict(found.config).as_dict()
            return replace(found, run={**found.run, "config": config})


def made_by(command: str, seconds: float, **versions: str) -> MadeBy:
    """The command with versions and the machine it ran on."""
    return {
        "command": command,
        "seconds": round(seconds, 1),
        "spikeport": __version__,
        "python": platform.python_version(),
        **versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    """The processor's model name and what it has for low precision."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in info.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = set(fields.get("flags", "").split())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    name = fields.get("model name", platform.machine())
    return f"{name} ({', '.join(f for f in known if f in flags)})"
