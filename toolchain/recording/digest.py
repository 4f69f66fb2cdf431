"""128-bit digests of each layer and step, the same in every backend, for any batching and split.

For each layer and local step there are two digests, one of the spikes (int8) and one of the
membrane potentials (int32, little-endian), channels last (H, W, C). The digest of N samples is a
polynomial of their hashes h, the XXH3-128 of each sample's bytes as a big-endian number:

    d = (h[0] B^(N-1) + ... + h[N-2] B + h[N-1]) mod P

P is the largest prime below 2^128, and B = 5 a primitive root of it, so that any two samples that
change places change d. The digests of two consecutive parts give that of the whole, see `joined`.

Recordings of version 2 have chains instead: from 16 zero bytes on, each sample replaces the chain
by the XXH3-128 of the chain followed by its bytes. They are made only to read such recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    from toolchain.recording.recording import Recording

DIGEST_BYTES = 16
SPIKES, MEMBRANE = 0, 1
"""Index into the second axis of a digest array."""
MODULUS, BASE = (1 << 128) - 159, 5
CHAINED = 2
"""Version of the recordings whose digests are chains."""


class StepDigests:
    """Running digests of one layer over `num_steps` steps; feed each step's samples in order.

    Parameters
    ----------
    start:
        Digests of the samples before, uint8 (T, 2, 16); by default there are none.
    """

    def __init__(self, num_steps: int, start: np.ndarray | None = None) -> None:
        if start is None:
            start = np.zeros((num_steps, 2, DIGEST_BYTES), np.uint8)
        self._digests = [[_number(part.tobytes()) for part in pair] for pair in start]

    def update(self, step: int, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Add n samples of local step `step`, from 1.

        Parameters
        ----------
        spikes:
            int8 (n, H, W, C) or (n, F); None for a readout, whose digest stays 0.
        membrane:
            int32, in the same axes.
        """
        digests = self._digests[step - 1]
        if spikes is not None:
            digests[SPIKES] = self._continued(digests[SPIKES], np.ascontiguousarray(spikes, "<i1"))
        digests[MEMBRANE] = self._continued(
            digests[MEMBRANE], np.ascontiguousarray(membrane, "<i4")
        )

    def result(self) -> np.ndarray:
        """Digests uint8 (T, 2, 16): per step those of the spikes and the membrane potential."""
        return np.array([[_bytes(digest) for digest in pair] for pair in self._digests])

    @staticmethod
    def _continued(digest: int, samples: np.ndarray) -> int:
        for sample in samples:
            digest = (digest * BASE + xxhash.xxh3_128_intdigest(sample)) % MODULUS
        return digest


class ChainedDigests(StepDigests):
    """The digests of version 2."""

    @staticmethod
    def _continued(digest: int, samples: np.ndarray) -> int:
        for sample in samples:
            chain = xxhash.xxh3_128(digest.to_bytes(DIGEST_BYTES, "big"))
            chain.update(sample)
            digest = chain.intdigest()
        return digest


def joined(parts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """Digests of consecutive parts, uint8 (T, 2, 16) and a number of samples each, as one."""
    whole, _ = parts[0]
    for digests, count in parts[1:]:
        shift = pow(BASE, count, MODULUS)
        pairs = zip(whole.reshape(-1, DIGEST_BYTES), digests.reshape(-1, DIGEST_BYTES), strict=True)
        numbers = [
            (_number(a.tobytes()) * shift + _number(b.tobytes())) % MODULUS for a, b in pairs
        ]
        whole = np.array([_bytes(number) for number in numbers]).reshape(digests.shape)
    return whole


def digests_of(
    full: Recording, version: int, before: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Digests of a full recording as its version, or an earlier one, has them, by layer.

    Parameters
    ----------
    before:
        Digests of the samples before, by layer.
    """
    kind = ChainedDigests if version == CHAINED else StepDigests
    found = {}
    for layer, membrane in full.membrane.items():
        digests = kind(len(membrane), (before or {}).get(layer))
        spikes = full.spikes.get(layer)
        for step, potential in enumerate(membrane):
            sent = None if spikes is None else np.moveaxis(spikes[step], 1, -1)
            digests.update(step + 1, sent, np.moveaxis(potential, 1, -1))
        found[layer] = digests.result()
    return found


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")


def _bytes(digest: int) -> np.ndarray:
    return np.frombuffer(digest.to_bytes(DIGEST_BYTES, "big"), np.uint8)
