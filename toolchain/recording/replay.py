"""A run reduced to hashes, with which a later run can be compared.

The digests of all steps of a layer are hashed into one, so that a whole test set fits in one
line of JSON, and the first layer that differs can still be named.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolchain.errors import RecordingError
from toolchain.recording.digest import CHAINED
from toolchain.recording.recording import LOGITS, OUTPUT, RECORDING_VERSION, Recording


@dataclass(frozen=True)
class Replay:
    """The results of a program on some data, as hashes.

    Attributes
    ----------
    data, data_sha256, samples:
        Name of the source, hash of its samples and labels, and their number.
    program_hash:
        Hash of the program that ran.
    version:
        Version of the recording, which says what its digests are.
    layers:
        SHA-256 of the step digests, by layer.
    outputs:
        SHA-256 of the values, by output; names as in a recording, `logits` or `output/<readout>`.
    """

    data: str
    data_sha256: str
    samples: int
    program_hash: str
    layers: dict[str, str]
    outputs: dict[str, str]
    version: int = RECORDING_VERSION

    @classmethod
    def of(cls, recording: Recording, data: str, data_sha256: str) -> Replay:
        """The replay of a recording with digests.

        Raises
        ------
        RecordingError
            If the recording has no digests.
        """
        if not recording.digests:
            raise RecordingError("a recording without digests cannot be replayed", node=data)
        layers = {name: _sha256(digests) for name, digests in recording.digests.items()}
        named = recording.named_outputs().items()
        outputs = {name: _sha256(output.astype("<i8")) for name, output in named}
        program = str(recording.meta["program_hash"])
        count = recording.num_samples
        return cls(data, data_sha256, count, program, layers, outputs, recording.version)

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> Replay:
        """The replay from the result of `describe`; raises KeyError or TypeError for anything else.

        Older files have no `version`, and hashes of chains as `layers`; the oldest list outputs
        among them.
        """
        version = int(fields.get("version", CHAINED))
        kept = fields["layers" if version == CHAINED else "digests"]
        layers = {str(k): str(v) for k, v in dict(kept).items()}
        if "outputs" in fields:
            outputs = {str(k): str(v) for k, v in dict(fields["outputs"]).items()}
        else:
            mixed = [k for k in layers if k == LOGITS or k.startswith(f"{OUTPUT}/")]
            outputs = {name: layers.pop(name) for name in mixed}
        return cls(
            str(fields["data"]),
            str(fields["data_sha256"]),
            int(fields["samples"]),
            str(fields["program_hash"]),
            layers,
            outputs,
            version,
        )

    def describe(self) -> dict[str, Any]:
        """All fields by name, as JSON: `layers` of chains, of other versions `digests` for it.

        So programs that know chains only refuse the others, and do not call them different.
        """
        fields = asdict(self)
        if self.version == CHAINED:
            del fields["version"]
        else:
            fields["digests"] = fields.pop("layers")
        return fields

    def differences(self, kept: Replay) -> list[str]:
        """Layers with other results than in `kept`, in the order of this run, then outputs.

        An output called O is listed as `output/O`, which is no valid name of a layer.

        Raises
        ------
        RecordingError
            If the two do not have the same program, layers and outputs.
        """
        for what, mine, other in (
            ("program", {self.program_hash}, {kept.program_hash}),
            ("version", {str(self.version)}, {str(kept.version)}),
            ("layers", {*self.layers}, {*kept.layers}),
            ("outputs", {*self.outputs}, {*kept.outputs}),
        ):
            if mine != other:
                raise RecordingError(
                    f"the run that was kept is not of this program: its {what} differ",
                    node=kept.data,
                    found=", ".join(sorted(mine ^ other)),
                    remedy="keep it again: spikeport verify NET.net --data D --record",
                )
        return [
            *(name for name in self.layers if self.layers[name] != kept.layers[name]),
            *(
                f"{OUTPUT}/{name.removeprefix(f'{OUTPUT}/')}"
                for name in self.outputs
                if self.outputs[name] != kept.outputs[name]
            ),
        ]


def _sha256(values: np.ndarray) -> str:
    digest = hashlib.sha256(f"{values.shape}:".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
