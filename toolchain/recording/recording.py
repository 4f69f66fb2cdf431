"""The recording format: an `.npz` of plain arrays, never pickled.

| array | type and shape | modes |
|---|---|---|
| `meta` | JSON text: program hash, backend, versions, seeds, schedule, layers | all |
| `spikes/<layer>` | int8 (T, N, ...) | full |
| `membrane/<layer>` | int32 (T, N, ...), after firing | full |
| `counts/<layer>` | int32 (N, ...), net spike count | full, counts |
| `spike_times/<layer>` | int32 (E, 4), see below | events |
| `digest/<layer>` | uint8 (T, 2, 16), see `digest.py` | full, digest, events |
| `logits` | int64 (N, K) | all, where the only output is a vector |
| `output/<readout>` | int64 (N, K) or (N, C, H, W) | all, where there are several, or an image |
| `labels` | int64 (N,), -1 where unknown | all |

A row of `spike_times` is an event: sample from 0, local step from 1, neuron as an index into the
flattened (C, H, W) or (F,) that `shapes` in `meta` gives, and the spike, which is 1, -1, or a
relay's graded one. Rows are sorted.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.canonical import canonical_json
from toolchain.containers import read_npz
from toolchain.documents import as_error, parse_json
from toolchain.errors import RecordingError
from toolchain.files import atomic_path
from toolchain.recording.digest import CHAINED
from toolchain.recording.schema import check_complete
from toolchain.recording_mode import Mode

RECORDING_VERSION = 3
"""Version 3: digests of parts give that of the whole. Version 2 has chains of XXH3-128 instead,
see `digest.py`. Version 1, which hashed all samples at once with BLAKE2b, is not read."""

LOGITS, OUTPUT = "logits", "output"
"""Names of the outputs in a file."""
_GROUPS = (OUTPUT, "spikes", "membrane", "counts", "digest", "spike_times")
"""Prefixes of layers' arrays in a file, in the order of `Recording`'s fields."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a program over N samples; see the module for the arrays.

    Attributes
    ----------
    meta:
        At least `program_hash`, `backend`, `mode`, `wake_steps`, `sleep_steps`, `layers` (names
        in topological order, the readouts last), `shapes` by layer, `synops` and `unsettled`.
    outputs:
        Accumulator after the last step by readout, int64 (N, K) or (N, C, H, W).
    """

    meta: dict[str, Any]
    outputs: dict[str, np.ndarray]
    labels: np.ndarray
    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    membrane: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    digests: dict[str, np.ndarray] = field(default_factory=dict)
    spike_times: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Version of the format, which says what its digests are."""
        return int(self.meta["recording_version"])

    @property
    def mode(self) -> Mode:
        """What the recording contains of each layer."""
        return Mode(self.meta["mode"])

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in topological order."""
        return list(self.meta["layers"])

    @property
    def num_samples(self) -> int:
        """Number of recorded samples N."""
        return len(self.labels)

    @property
    def is_classifier(self) -> bool:
        """Whether the only output is a vector."""
        return len(self.outputs) == 1 and all(a.ndim == 2 for a in self.outputs.values())

    @property
    def logits(self) -> np.ndarray:
        """The only output of a classifier, int64 (N, K).

        Raises
        ------
        RecordingError
            If the network has several outputs, or one that is an image.
        """
        if not self.is_classifier:
            raise RecordingError(
                "this is for classifiers, whose output is one vector of logits",
                node=str(self.meta.get("program")),
                found=", ".join(f"{k} {v.shape[1:]}" for k, v in self.outputs.items()),
                allowed="one output (N, K)",
                remedy="take them from `outputs`, by name",
            )
        (logits,) = self.outputs.values()
        return logits

    def named_outputs(self) -> dict[str, np.ndarray]:
        """The outputs by their names in a file: `logits`, or `output/<readout>`."""
        if self.is_classifier:
            return {LOGITS: self.logits}
        return {f"{OUTPUT}/{name}": array for name, array in self.outputs.items()}

    @property
    def predictions(self) -> np.ndarray:
        """Index of each sample's largest logit, the lowest on ties: int64 (N,)."""
        return np.argmax(self.logits, axis=1)

    @property
    def synops(self) -> int:
        """Synaptic operations of all samples; a graded spike counts once per synapse."""
        return int(sum(self.meta["synops"].values()))

    def accuracy(self) -> float | None:
        """Fraction of samples predicted as labelled; None without labels."""
        if (self.labels < 0).any():
            return None
        return float((self.predictions == self.labels).mean())

    def save(self, path: Path | str) -> None:
        """Write the recording as `.npz`, through a temporary file and a rename."""
        arrays: dict[str, np.ndarray] = {"meta": np.array(canonical_json(self.meta))}
        groups = (self.spikes, self.membrane, self.counts, self.digests, self.spike_times)
        for prefix, group in zip(_GROUPS[1:], groups, strict=True):
            arrays |= {f"{prefix}/{name}": array for name, array in group.items()}
        arrays |= {**self.named_outputs(), "labels": self.labels}
        with (
            atomic_path(Path(path)) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, array in arrays.items():
                # A fixed date, so that equal recordings are equal files.
                entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]

    @classmethod
    def load(cls, path: Path | str) -> Recording:
        """Read a recording.

        Raises
        ------
        RecordingError
            If the file is missing, damaged, or not a recording of this version.
        """
        path = Path(path)
        if not path.is_file():
            raise RecordingError("no such file", node=str(path))
        with as_error(RecordingError, "not a recording", str(path)):
            arrays = read_npz(path)
            meta = parse_json(str(arrays.pop("meta")))
            version = meta["recording_version"]
            if version not in (CHAINED, RECORDING_VERSION):
                raise RecordingError(
                    "unknown recording version",
                    node=str(path),
                    found=version,
                    allowed=f"{CHAINED} or {RECORDING_VERSION}",
                )
            groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in _GROUPS}
            labels = arrays.pop("labels")
            if LOGITS in arrays:
                groups[OUTPUT][str(meta["layers"][-1])] = arrays.pop(LOGITS)
            for name, array in arrays.items():
                group, _, layer = name.partition("/")
                groups[group][layer] = array
            loaded = cls(meta, groups.pop(OUTPUT), labels, *groups.values())
            check_complete(loaded)
        return loaded
