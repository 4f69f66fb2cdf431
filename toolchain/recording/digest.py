"""128-bit digests of each layer and step, the same in every backend and for any batching.

For each layer and local step two chains run over the samples in order, one of the spikes (int8)
and one of the membrane potentials (int32, little-endian), channels last (H, W, C): from 16 zero
bytes on, each sample replaces the chain by the XXH3-128 of the chain followed by its bytes. A chain
can be continued at any sample, and its state has only 16 bytes.
"""

from __future__ import annotations

import numpy as np
import xxhash

DIGEST_BYTES = 16
SPIKES, MEMBRANE = 0, 1
"""Index into the second axis of a digest array."""


class StepDigests:
    """Running digests of one layer over `num_steps` steps; feed each step's samples in order.

    Parameters
    ----------
    start:
        Digests so far, uint8 (T, 2, 16).
    """

    def __init__(self, num_steps: int, start: np.ndarray | None = None) -> None:
        if start is None:
            start = np.zeros((num_steps, 2, DIGEST_BYTES), np.uint8)
        self._chains = [[part.tobytes() for part in pair] for pair in start]

    def update(self, step: int, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Add n samples of local step `step`, from 1.

        Parameters
        ----------
        spikes:
            int8 (n, H, W, C) or (n, F); None for a readout, whose chain stays unchanged.
        membrane:
            int32, in the same axes.
        """
        chains = self._chains[step - 1]
        if spikes is not None:
            chains[SPIKES] = _continued(chains[SPIKES], np.ascontiguousarray(spikes, "<i1"))
        chains[MEMBRANE] = _continued(chains[MEMBRANE], np.ascontiguousarray(membrane, "<i4"))

    def result(self) -> np.ndarray:
        """Digests uint8 (T, 2, 16): per step those of the spikes and the membrane potential."""
        return np.array([[np.frombuffer(c, np.uint8) for c in pair] for pair in self._chains])


def _continued(chain: bytes, samples: np.ndarray) -> bytes:
    for sample in samples:
        digest = xxhash.xxh3_128(chain)
        digest.update(sample)
        chain = digest.digest()
    return chain
