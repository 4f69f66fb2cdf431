"""128-bit digests of each layer and step, the same in every backend and for any batching.

For each layer and local step one BLAKE2b hash runs over the spikes of all samples in order (int8,
C, H, W order) and one over their membrane potentials (int32, little-endian).
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

DIGEST_BYTES = 16
SPIKES, MEMBRANE = 0, 1
"""Index into the second axis of a digest array."""


class StepDigests:
    """Running digests of one layer over `num_steps` steps; feed samples in order."""

    def __init__(self, num_steps: int) -> None:
        self._hashes = [
            (blake2b(digest_size=DIGEST_BYTES), blake2b(digest_size=DIGEST_BYTES))
            for _ in range(num_steps)
        ]

    def update(self, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Add samples: spikes int8 (T, n, ...) (None for a readout) and membrane int32."""
        for step, (of_spikes, of_membrane) in enumerate(self._hashes):
            if spikes is not None:
                of_spikes.update(np.ascontiguousarray(spikes[step], "<i1").tobytes())
            of_membrane.update(np.ascontiguousarray(membrane[step], "<i4").tobytes())

    def result(self) -> np.ndarray:
        """uint8 (T, 2, 16): for each step the digest of the spikes and of the membrane."""
        return np.array(
            [[np.frombuffer(h.digest(), np.uint8) for h in pair] for pair in self._hashes]
        )
