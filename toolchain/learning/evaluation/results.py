"""An evaluation as a JSON file: what was measured, on what, by which command and versions."""

from __future__ import annotations

import base64
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolchain import __version__
from toolchain.accuracy import Accuracy, Correct, Flips
from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import DataError
from toolchain.files import atomic_write
from toolchain.learning.evaluation.schema import (
    Counts,
    Gaps,
    MadeBy,
    OnLava,
    OverTime,
    Run,
    check_made,
)
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

FILE_NAME = "evaluation.json"
FLOAT = "float"


def integer(weight_bits: int) -> str:
    """What a row calls the arithmetic of a program."""
    return f"{weight_bits}-bit integer"


class Document:
    """Base of the dataclasses of what was measured of one trained network; a JSON file each.

    Attributes
    ----------
    run:
        Configuration, kept epoch, hash and history of the checkpoint; None of other networks.
    made_by:
        Command, versions, machine, seconds.
    """

    version: ClassVar[int] = 1
    version_name: ClassVar[str]
    """What the version is called in the file."""
    command: ClassVar[str]
    """Writes such a file."""
    settings: ClassVar[type[Settings]]
    # Each kind declares them anew in its own order, which is that of its files.
    run: Run | None
    made_by: MadeBy

    @property
    def config(self) -> dict[str, Any]:
        """The training configuration by setting, as JSON; empty if it is unknown."""
        return {} if self.run is None else self.run["config"]

    def write(self, path: Path) -> None:
        """Write the document as JSON; an interrupted write leaves the previous file."""
        values = {self.version_name: self.version, **asdict(self)}  # type: ignore[call-overload]
        atomic_write(path, (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Self:
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
                remedy=f"{cls.command} RUN --data SOURCE makes one",
            )
        with as_error(DataError, "damaged evaluation", str(path)):
            values = parse_json(read_text(path))
            version = values.pop(cls.version_name)
            if version != cls.version:
                raise DataError(
                    f"unknown {cls.version_name.replace('_', ' ')}",
                    node=str(path),
                    found=str(version)[:80],
                    allowed=cls.version,
                )
            found = typed(cls, values)
            check_made(found.made_by)
            if found.run is not None:
                found.run["config"] = cls.settings.from_dict(found.config).as_dict()
            return found


@dataclass(frozen=True)
class Row:
    """One network as it was measured.

    Attributes
    ----------
    network:
        "ANN" or "SNN".
    arithmetic:
        "float", "quantized" (activations only), or "8-bit integer" and so on.
    neuron:
        "" for an ANN, else "IF", "CIF" or "CIF + sleep".
    steps:
        Time steps in all, None for an ANN.
    """

    network: str
    arithmetic: str
    neuron: str
    steps: int | None


@dataclass(frozen=True)
class AccuracyRow(Row):
    """Accuracy of one network, with arithmetic and steps of `Row`.

    Attributes
    ----------
    right:
        Which samples it has right: one bit each, the first is the highest of its byte, base64.
        Empty in files that were written before flips were counted.
    """

    accuracy: Correct
    right: str = ""

    def __post_init__(self) -> None:
        if not self.right:
            return
        bits = self._bits()
        if bits.sum() != self.accuracy["correct"] or len(bits) - self.accuracy[
            "total"
        ] not in range(8):
            raise ValueError("the samples that are right are not as many as `accuracy` says")

    @classmethod
    def of(cls, row: Row, outputs: np.ndarray, labels: np.ndarray) -> AccuracyRow:
        """The row of a network's outputs (N, K) for labels (N,)."""
        right = base64.b64encode(np.packbits(outputs.argmax(axis=1) == labels).tobytes()).decode()
        accuracy = Accuracy.of(outputs, labels).describe()
        return cls(**asdict(row), accuracy=accuracy, right=right)

    def _bits(self) -> np.ndarray:
        return np.unpackbits(np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8))

    def flips(self, other: AccuracyRow) -> Flips | None:
        """Against another network on the same samples; None where one file does not tell."""
        totals = {row.accuracy["total"] for row in (self, other)}
        if not self.right or not other.right or len(totals) > 1:
            return None
        first, second = (row._bits()[: row.accuracy["total"]] == 1 for row in (self, other))
        return Flips.of(first, second)


@dataclass(frozen=True)
class Evaluation(Document):
    """All that was measured of one classifier.

    Attributes
    ----------
    data, num_samples:
        The source with split and slice.
    rows:
        Accuracies.
    gaps:
        {"steps": T, "layers": {...}}, see `float_network.LayerGap`; None where not measured.
    counts:
        {"wake_steps", "sleep_steps", "variants": {neuron: {...}}}, see `int_network.CountError`.
    lava:
        Samples, values compared and mismatches of a run on Lava.
    notes:
        What was not measured and why, and what was assumed.
    network:
        Where a network without a checkpoint comes from: hashes and names, as in a program's
        provenance.
    sequences:
        Each integer spiking network over the steps of sequences; nothing of still samples.
    """

    version_name = "evaluation_version"
    command = "spikeport evaluate"
    settings = TrainConfig

    run: Run | None
    data: str
    num_samples: int
    made_by: MadeBy
    rows: tuple[AccuracyRow, ...]
    gaps: Gaps | None = None
    counts: Counts | None = None
    lava: OnLava | None = None
    notes: tuple[str, ...] = ()
    network: dict[str, Any] | None = None
    sequences: tuple[OverTime, ...] = ()

    def find(self, **wanted: Any) -> AccuracyRow | None:
        """The first row with these fields, or None."""
        for row in self.rows:
            if all(getattr(row, k) == v for k, v in wanted.items()):
                return row
        return None

    def in_float(self, row: AccuracyRow) -> AccuracyRow | None:
        """The float network that an integer network computes, at the same steps; None if none."""
        if row.arithmetic == FLOAT:
            return None
        return self.find(network=row.network, arithmetic=FLOAT, neuron=row.neuron, steps=row.steps)


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
