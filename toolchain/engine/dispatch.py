"""Which planes to convolve, which to sum event by event, and which to leave out.

A plane is what one layer sends in one step of one sample, bytes (H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from toolchain.compiled import parallel
from toolchain.engine.neuron_layout import allowed_threads

WORTH_CHOOSING = 0.6
"""Share of planes to convolve below which it is worth picking them out."""
TOGETHER = 8
"""Planes are convolved in multiples of this many, as oneDNN makes a kernel for each number."""


@dataclass(frozen=True)
class Planes:
    """Numbers of planes, int64 each: those to convolve, to sum event by event, and to leave out.

    Dense ones may include others, to make up their number. The sparse ones come with the most
    spikes first.
    """

    dense: np.ndarray
    sparse: np.ndarray
    silent: np.ndarray


def sort_planes(spikes: np.ndarray, limit: float) -> Planes | None:
    """How to sum planes with these numbers of spikes, int64 (k,); None to convolve them all.

    `limit` is how many may be summed event by event.
    """
    (dense,) = (spikes > limit).nonzero()
    wanted = -(-len(dense) // TOGETHER) * TOGETHER
    if wanted > WORTH_CHOOSING * len(spikes):
        return None
    (few,) = ((spikes > 0) & (spikes <= limit)).nonzero()
    few = few[np.argsort(-spikes[few], kind="stable")]
    (silent,) = (spikes == 0).nonzero()
    filling = wanted - len(dense)
    busiest, left = few[:filling], few[filling:]
    more = silent[: filling - len(busiest)]
    return Planes(np.concatenate([dense, busiest, more]), left, silent[len(more) :])


def count_spikes(planes: np.ndarray, silence: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """Spikes of all planes of bytes (m, ...), or of some, int64 (k,).

    One of the value n counts as n, whatever its sign.
    """
    if numbers is None:
        numbers = np.arange(len(planes))
    counts = np.empty(len(numbers), np.int64)
    numba.set_num_threads(allowed_threads())
    count_all(planes.reshape(len(planes), -1), np.uint8(silence), numbers, counts)
    return counts


@parallel
def count_all(planes, silence, numbers, counts):  # type: ignore[no-untyped-def]
    """See `count_spikes`; planes are (m, K)."""
    for m in numba.prange(len(numbers)):
        plane = planes[numbers[m]]
        count = np.int64(0)
        for k in range(plane.shape[0]):
            count += abs(np.int64(plane[k]) - np.int64(silence))
        counts[m] = count
