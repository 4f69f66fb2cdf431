"""Convolutions with blocks of equal weights, factored into a sum over windows and a smaller one.

Folding an average pool into the following convolution repeats each weight for every site of a
window: a 3x3 convolution after a 2x2 pool becomes a 6x6 one of stride 2 with blocks of 2x2 equal
weights. The spikes of a block always have the same weight, so summing them to graded spikes and
convolving these with one weight per block gives the same sums with a fourth of the products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from toolchain.compiled import compiled
from toolchain.engine.identity_synapses import is_direct
from toolchain.engine.spike_encoding import INT8, CodedSpikes, coded_offset
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse
from toolchain.threads import share, slices

WORTH_A_THREAD = 1 << 18
"""Number of spikes that are worth a thread to add up."""


@dataclass(frozen=True)
class PooledConvolution:
    """A convolution as sums over windows, and a smaller convolution of these sums.

    Attributes
    ----------
    window:
        (height, width) of a block.
    synapse:
        The smaller convolution, with one weight per block, of the sums over windows.
    spikes:
        Range of a sum over a window.
    """

    window: tuple[int, int]
    synapse: ConvSynapse
    spikes: IntRange

    def source_shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H, W) of the sums, for spikes of the shape `source`."""
        return (source[0], source[1] // self.window[0], source[2] // self.window[1])

    @property
    def is_all(self) -> bool:
        """Whether each sum is the whole input of its neuron, and fits a signed byte."""
        weights = self.synapse.weight
        return (
            is_direct(self.synapse)
            and bool((weights == 1).all())
            and INT8.contains(self.spikes.low, self.spikes.high)
        )

    def add_up(self, coded: CodedSpikes) -> CodedSpikes:
        """Sums over windows, encoded as bytes again; the spikes must be bytes."""
        steps, samples, height, width, channels = coded.values.shape
        rows, columns = self.window
        sums = np.empty((steps, samples, height // rows, width // columns, channels), np.uint8)
        offset = coded_offset(self.spikes)
        assert offset == rows * columns * coded.offset
        planes = coded.values.reshape(-1, *coded.values.shape[2:])
        totals = sums.reshape(-1, *sums.shape[2:])
        parts = slices(len(planes), planes.size // WORTH_A_THREAD)
        share(lambda part: add_windows(planes[part], totals[part]), parts)
        return CodedSpikes(sums, offset, self.source_shape(coded.shape))


def as_pooled(
    synapse: object, source: tuple[int, ...], spikes: IntRange
) -> PooledConvolution | None:
    """The convolution factored with its largest blocks whose sums fit bytes; None without any.

    Blocks must have the same grid under every output: they divide stride, padding, kernel and
    the source's plane.
    """
    if not isinstance(synapse, ConvSynapse) or synapse.dilation != (1, 1) or not synapse.is_even:
        return None
    sides = zip(synapse.stride, synapse.padding, synapse.weight.shape[2:], source[1:], strict=True)
    common = [gcd(*side) for side in sides]
    windows = [(rows, columns) for rows in _divisors(common[0]) for columns in _divisors(common[1])]
    for rows, columns in sorted(windows, key=lambda window: -window[0] * window[1]):
        reach = IntRange(min(spikes.low, 0) * rows * columns, max(spikes.high, 0) * rows * columns)
        if rows * columns == 1 or coded_offset(reach) is None:
            continue
        weight = synapse.weight[:, :, ::rows, ::columns]
        if np.array_equal(weight.repeat(rows, 2).repeat(columns, 3), synapse.weight):
            stride = (synapse.stride[0] // rows, synapse.stride[1] // columns)
            padding = (synapse.padding[0] // rows, synapse.padding[1] // columns)
            small = replace(synapse, weight=weight, stride=stride, padding=padding)
            return PooledConvolution((rows, columns), small, reach)
    return None


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@compiled
def add_windows(planes, sums):  # type: ignore[no-untyped-def]
    """Fill `sums`, uint8 (m, H, W, C), with sums over the windows of `planes` that fit."""
    rows, columns = planes.shape[1] // sums.shape[1], planes.shape[2] // sums.shape[2]
    for m in range(sums.shape[0]):
        for y in range(sums.shape[1]):
            for x in range(sums.shape[2]):
                into = sums[m, y, x]
                into[:] = 0
                for a in range(rows):
                    for b in range(columns):
                        site = planes[m, y * rows + a, x * columns + b]
                        for c in range(into.shape[0]):
                            into[c] += site[c]
