"""Ranges of spikes and currents, by interval arithmetic over the synapses.

Per channel, with P and M the sums of positive and negative weights over the whole kernel (the
border only makes sums smaller), spikes in [lo, hi] give a current in
[lo * P + hi * M, hi * P + lo * M]. Where the source is spread out, an output meets only every n-th
tap: P and M are the largest of these sums. A relay's range is that of its places, each with the
taps that it meets: several synapses may fill one image, each its own part.
"""

from __future__ import annotations

from functools import singledispatch
from weakref import WeakKeyDictionary

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse

MAX_WEIGHT_SUM = 1 << 36
"""Largest sum of weights: products with 24-bit graded spikes, and sums of a few, fit int64."""


Sums = tuple[np.ndarray, np.ndarray]
_known: WeakKeyDictionary[object, Sums] = WeakKeyDictionary()
"""Sums by synapse: every analysis of a program asks for them."""


def weight_sums(synapse: object) -> Sums:
    """Sums of positive and of negative weights per channel, exponent included.

    int64, (C,) each, or (1,) if all channels are equal.

    Raises
    ------
    ProgramError
        If a sum is too large for exact arithmetic in int64, or the synapse is unknown.
    """
    if synapse not in _known:
        _known[synapse] = _weight_sums(synapse)
    return _known[synapse]


@singledispatch
def _weight_sums(synapse: object) -> Sums:
    raise ProgramError("no range analysis for this synapse", found=type(synapse).__name__)


@_weight_sums.register
def _(synapse: ConvSynapse) -> Sums:
    down, across = synapse.apart
    sums = [
        _signed_sums(synapse, synapse.weight[:, :, row::down, column::across])
        for row in range(min(down, synapse.kernel[0]))
        for column in range(min(across, synapse.kernel[1]))
    ]
    positive, negative = zip(*sums, strict=True)
    return np.max(positive, axis=0), np.min(negative, axis=0)


@_weight_sums.register
def _(synapse: DenseSynapse) -> Sums:
    return _signed_sums(synapse, synapse.weight)


@_weight_sums.register
def _(synapse: WindowSynapse) -> Sums:
    # Each element of the current is one spike.
    return np.ones(1, np.int64), np.zeros(1, np.int64)


def sums_by_place(synapse: Synapse, source: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """As `weight_sums`, of the weights that meet values of a source of this shape at each place.

    int64, of shapes that broadcast against the output's, (C, H', W') or (F',). Raises as
    `weight_sums`.
    """
    positive, negative = weight_sums(synapse)
    if not isinstance(synapse, ConvSynapse):
        return positive, negative
    if not synapse.meets_zeros:
        return positive[:, None, None], negative[:, None, None]
    rows, columns = ((synapse.met(source, axis) >= 0).astype(np.int64) for axis in range(2))
    signed = (np.maximum(synapse.weight, 0), np.minimum(synapse.weight, 0))
    above, below = (rows @ w.sum(1, dtype=np.int64) @ columns.T for w in signed)
    return above << synapse.weight_exponent, below << synapse.weight_exponent


def _signed_sums(
    synapse: ConvSynapse | DenseSynapse, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows = weight.reshape(len(weight), -1)
    positive = np.array([np.maximum(row, 0).sum(dtype=np.int64) for row in rows])
    negative = rows.sum(1, dtype=np.int64) - positive
    largest = int((positive - negative).max()) << synapse.weight_exponent
    if largest > MAX_WEIGHT_SUM:
        raise ProgramError(
            "the weights are too large together for exact arithmetic",
            node=f"synapse from {synapse.source}",
            found=largest,
            allowed=MAX_WEIGHT_SUM,
        )
    return positive << synapse.weight_exponent, negative << synapse.weight_exponent


def largest_sum(synapse: Synapse, spikes: IntRange) -> int:
    """Bound of the magnitude of every partial sum of a synapse, in any order of addition.

    Raises
    ------
    ProgramError
        See `weight_sums`.
    """
    positive, negative = weight_sums(synapse)
    return int((positive - negative).max()) * max(abs(spikes.low), abs(spikes.high))


def weighted(
    positive: np.ndarray, negative: np.ndarray, spikes: IntRange
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest weighted sum per channel for spikes in `spikes`: int64 (C,) each.

    `positive` and `negative` are the results of `weight_sums`.
    """
    return (
        spikes.low * positive + spikes.high * negative,
        spikes.high * positive + spikes.low * negative,
    )
