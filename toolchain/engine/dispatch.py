"""The choice between convolving a plane, summing it event by event, and skipping it.

A plane contains the spikes of one layer in one step of one sample, bytes (H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.compiled import compiled
from toolchain.threads import share, slices

WORTH_CHOOSING = 0.6
"""Largest share of planes to convolve at which picking them out saves time."""
WORTH_A_THREAD = 1 << 19
"""Number of bytes whose spikes are worth a thread to count."""
TOGETHER = 8
"""The number of convolved planes is a multiple of this: oneDNN makes a kernel per number."""


@dataclass(frozen=True)
class Planes:
    """Indices of planes, int64 each: those to convolve, to sum event by event, and to skip.

    `dense` may include others, to reach a multiple of `TOGETHER`. In `sparse`, planes with the most
    spikes come first.
    """

    dense: np.ndarray
    sparse: np.ndarray
    silent: np.ndarray


def sort_planes(spikes: np.ndarray, limit: float) -> Planes | None:
    """How to sum planes with these spike counts, int64 (k,); None to convolve all of them.

    `limit` is the largest spike count of a plane that is summed event by event.
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
    """Spike counts of all planes of bytes (m, ...), or of those in `numbers`: int64 (k,).

    A spike of magnitude n counts as n.
    """
    if numbers is None:
        numbers = np.arange(len(planes))
    counts = np.empty(len(numbers), np.int64)
    flat = planes.reshape(len(planes), -1)
    parts = slices(len(numbers), len(numbers) * flat.shape[1] // WORTH_A_THREAD)
    share(lambda p: count_all(flat, np.uint8(silence), numbers[p], counts[p]), parts)
    return counts


@compiled
def count_all(planes, silence, numbers, counts):  # type: ignore[no-untyped-def]
    """Fill `counts`, see `count_spikes`; planes are (m, K)."""
    for m in range(len(numbers)):
        plane = planes[numbers[m]]
        count = np.int64(0)
        for k in range(plane.shape[0]):
            count += abs(np.int64(plane[k]) - np.int64(silence))
        counts[m] = count
