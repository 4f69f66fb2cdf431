"""A run in a few bytes: enough to tell, anywhere and at any time, whether another is the same.

Of every layer the digests of all steps are hashed into one, so that a whole test set stands in one
line of JSON, and the first layer that differs can still be named.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolchain.errors import RecordingError
from toolchain.recording.recording import Recording


@dataclass(frozen=True)
class Replay:
    """What a program did with some data.

    Attributes
    ----------
    data, data_sha256, samples:
        Name of the source, hash of its samples and labels, and how many.
    program_hash:
        Of the program that ran.
    layers:
        SHA-256 by layer over its step digests, in the program's order, then of the outputs by the
        names they have in a recording.
    """

    data: str
    data_sha256: str
    samples: int
    program_hash: str
    layers: dict[str, str]

    @classmethod
    def of(cls, recording: Recording, data: str, data_sha256: str) -> Replay:
        """From a recording with digests.

        Raises
        ------
        RecordingError
            If it has none.
        """
        if not recording.digests:
            raise RecordingError("a recording without digests cannot be replayed", node=data)
        layers = {name: _sha256(digests) for name, digests in recording.digests.items()}
        for name, output in recording.named_outputs().items():
            layers[name] = _sha256(output.astype("<i8"))
        program = str(recording.meta["program_hash"])
        return cls(data, data_sha256, recording.num_samples, program, layers)

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Replay:
        """From what `describe` gave; raises KeyError or TypeError where it is something else."""
        layers = {str(k): str(v) for k, v in dict(fields["layers"]).items()}
        return cls(
            str(fields["data"]),
            str(fields["data_sha256"]),
            int(fields["samples"]),
            str(fields["program_hash"]),
            layers,
        )

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def differences(self, other: Replay) -> list[str]:
        """Layers that did something else, in order; outputs last."""
        names = [*self.layers, *(name for name in other.layers if name not in self.layers)]
        return [name for name in names if self.layers.get(name) != other.layers.get(name)]


def _sha256(values: np.ndarray) -> str:
    digest = hashlib.sha256(f"{values.shape}:".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
