"""Sums of planes with few spikes: silent ones cost nothing, sparse ones an addition a spike.

A plane is what one layer sends in one step of one sample, bytes (H, W, C). Asleep, most planes are
silent, and more are sparse; awake, few are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from toolchain.program.synapse import ConvSynapse
from toolchain.simulator.engine.kernels import compiled, parallel
from toolchain.simulator.engine.rows import allowed_threads

SPARSE = 1 / 40
"""Share of sites with a spike up to which adding up the weights of each is faster than convolving;
measured with VNNI and 256 or 512 channels, and proportionally less with fewer."""
MANY_CHANNELS = 256
WORTH_CHOOSING = 0.6
"""Share of planes to convolve below which it is worth picking them out."""
TOGETHER = 8
"""Planes are convolved in multiples of this many, as oneDNN makes a kernel for each number."""
FEW_WEIGHTS = 32
"""Weights a neuron has, at most, where sums cost no more than picking out planes does."""


@dataclass(frozen=True)
class Planes:
    """Numbers of planes, int64 each: those to convolve, and those to sum event by event.

    Dense ones may include others, to make up their number; planes in neither are silent.
    """

    dense: np.ndarray
    sparse: np.ndarray


def sort_planes(planes: np.ndarray, silence: int, channels: int) -> Planes | None:
    """How to sum planes, uint8 (m, H, W, C); None where it is best to convolve them all.

    `channels` are those of the sums, or 0 if they cannot be made event by event.
    """
    flat = planes.reshape(len(planes), -1)
    limit = int(flat.shape[1] * SPARSE * min(1, channels / MANY_CHANNELS))
    counts = np.empty(len(planes), np.int64)
    count_spikes(*in_words(flat, silence), limit, counts)
    (dense,) = (counts > limit).nonzero()
    wanted = -(-len(dense) // TOGETHER) * TOGETHER
    if wanted > WORTH_CHOOSING * len(planes):
        return None
    (few,) = ((counts > 0) & (counts <= limit)).nonzero()
    (silent,) = (counts == 0).nonzero()
    rest = np.concatenate([silent, few])
    more = rest[: wanted - len(dense)]
    return Planes(np.concatenate([dense, more]), np.setdiff1d(few, more, assume_unique=True))


def in_words(values: np.ndarray, silence: int) -> tuple[np.ndarray, np.integer[Any]]:
    """Bytes (..., K) eight at a time where they fill words, and the word that says silence."""
    if values.shape[-1] % 8:
        return values, np.uint8(silence)
    return values.view(np.uint64), np.uint64(silence * 0x0101010101010101)


class EventSum:
    """Sums of an ungrouped convolution, event by event, where float32 is exact."""

    def __init__(self, synapse: ConvSynapse) -> None:
        laid_out = synapse.weight.transpose(1, 2, 3, 0)
        small = np.abs(synapse.weight, dtype=np.int64).max(initial=0) < 128
        self._weight = np.ascontiguousarray(laid_out, np.int8 if small else np.int32)
        pairs = (synapse.stride, synapse.padding, synapse.dilation)
        self._geometry = [np.array(pair, np.int64) for pair in pairs]

    def add(self, planes: np.ndarray, silence: int, which: np.ndarray, total: np.ndarray) -> None:
        """Add the sums of some planes, uint8 (m, H, W, C), to float32 (m, H_out, W_out, C_out)."""
        words, silent = in_words(planes, silence)
        numba.set_num_threads(allowed_threads())
        given = (planes, np.uint8(silence), words, silent, which, self._weight, *self._geometry)
        add_events(*given, total)


@compiled
def bytes_that_differ(word, other):  # type: ignore[no-untyped-def]
    """In how many of its bytes a word differs from another."""
    difference = word ^ other
    count = 0
    while difference:
        count += (difference & 0xFF) != 0
        difference >>= 8
    return count


@compiled
def count_spikes(planes, silence, limit, counts):  # type: ignore[no-untyped-def]
    """Put the spikes of each plane, words (m, K), into `counts`; above `limit`, any number does."""
    for m in range(planes.shape[0]):
        count = 0
        for k in range(planes.shape[1]):
            if planes[m, k] != silence:
                count += bytes_that_differ(planes[m, k], silence)
                if count > limit:
                    break
        counts[m] = count


@compiled
def add_event(  # type: ignore[no-untyped-def]
    y, x, spike, weight, stride, padding, dilation, total
):
    """Add one spike at (y, x) times `weight`, (K_h, K_w, C_out), to a plane of sums."""
    for a in range(weight.shape[0]):
        above = y + padding[0] - a * dilation[0]
        row = above // stride[0]
        if above < 0 or above % stride[0] or row >= total.shape[0]:
            continue
        for b in range(weight.shape[1]):
            left = x + padding[1] - b * dilation[1]
            column = left // stride[1]
            if left < 0 or left % stride[1] or column >= total.shape[1]:
                continue
            into, w = total[row, column], weight[a, b]
            for k in range(into.shape[0]):
                into[k] += spike * np.float32(w[k])


@parallel
def add_events(  # type: ignore[no-untyped-def]
    planes, silence, words, silent, which, weight, stride, padding, dilation, total
):
    """See `EventSum.add`; `words` are the planes as (m, H, W, K).

    Weights lie as (C_in, K_h, K_w, C_out).
    """
    size = planes.shape[3] // words.shape[3]
    for i in numba.prange(which.shape[0]):
        plane, packed, into = planes[which[i]], words[which[i]], total[which[i]]
        for y in range(plane.shape[0]):
            for x in range(plane.shape[1]):
                for j in range(packed.shape[2]):
                    if packed[y, x, j] == silent:
                        continue
                    for c in range(j * size, (j + 1) * size):
                        if plane[y, x, c] != silence:
                            spike = np.float32(np.int32(plane[y, x, c]) - np.int32(silence))
                            add_event(y, x, spike, weight[c], stride, padding, dilation, into)
