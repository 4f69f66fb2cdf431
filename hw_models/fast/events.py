"""Event-driven application of a synapse, with weights in the kernels' layout.

Arrays are in Lava's order after the batch axis, (B, W, H, C) or (B, F).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import singledispatch
from math import gcd

import numpy as np

from hw_models.fast import event_sums, kernels
from toolchain.errors import TargetError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse

SUM_LIMIT = (1 << 31) - 1
"""Largest sum: the kernels sum in int32."""
INT8 = IntRange.signed(8)
MOST_REPEATED = 8
"""Largest magnitude of spikes that are listed as several of 1.

A product in `kernels` costs as much as about ten additions in `event_sums`.
"""


class Events(ABC):
    """The effect of spikes through one synapse, with weights in the kernels' layout."""

    @abstractmethod
    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents of `spikes`, int (B, ...), to `total`, int32 (B, ...)."""


class ConvEvents(Events):
    """Events of a convolution, computed by `kernels.convolve`."""

    def __init__(self, synapse: ConvSynapse, source_shape: tuple[int, ...]) -> None:
        groups, (c_out, per_group, k_h, k_w) = synapse.groups, synapse.weight.shape
        shifted = synapse.weight.astype(np.int64) << synapse.weight_exponent
        by_group = shifted.reshape(groups, c_out // groups, per_group, k_h, k_w)
        # (G, C'/G, C/G, K_h, K_w) to (G, K_w, C/G, K_h reversed, C'/G).
        self._weight = _smallest(by_group[..., ::-1, :].transpose(0, 4, 2, 3, 1)).ravel()
        along_h, along_w = _targets(synapse, source_shape)
        self._reached = along_w
        # With reversed taps, the targets of stride 1 and dilation 1 are consecutive.
        self._runs = _runs(along_h[:, ::-1], joined=groups == 1)
        height = synapse.output_shape(source_shape)[1]
        self._out_shape = (groups, per_group, k_w, k_h, height, c_out)

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`."""
        kernels.convolve(
            spikes, self._weight, self._reached, self._runs, self._out_shape, total.ravel()
        )


class DepthwiseEvents(Events):
    """A convolution with one input and one output channel per group: identities and sum pools."""

    def __init__(self, synapse: ConvSynapse, source_shape: tuple[int, ...]) -> None:
        shifted = synapse.weight[:, 0].astype(np.int64) << synapse.weight_exponent
        self._weight = _smallest(shifted.transpose(2, 1, 0))
        self._along_h, self._along_w = _targets(synapse, source_shape)

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`."""
        kernels.convolve_depthwise(spikes, self._weight, self._along_w, self._along_h, total)


def _targets(synapse: ConvSynapse, source_shape: tuple[int, ...]) -> list[np.ndarray]:
    """Target of each position and kernel tap, along H and along W; -1 for none."""
    targets = []
    for axis in range(2):
        met = synapse.met(source_shape, axis)
        target = np.full((source_shape[1 + axis], met.shape[1]), -1)
        places, taps = np.nonzero(met >= 0)
        target[met[places, taps], taps] = places
        targets.append(target)
    return targets


def _runs(targets: np.ndarray, *, joined: bool) -> np.ndarray:
    """Places (N, K) that taps meet, -1 for none, as runs (N, R, 3): first place, first tap, length.

    Neighbours are joined if allowed; a length of 0 ends the list.
    """
    size, taps = targets.shape
    runs = np.zeros((size, taps, 3), np.int64)
    for position in range(size):
        found: list[list[int]] = []
        for tap, target in enumerate(targets[position].tolist()):
            if target < 0:
                continue
            if joined and found and found[-1][0] + found[-1][2] == target:
                last = found[-1]
                if last[1] + last[2] == tap:
                    last[2] += 1
                    continue
            found.append([target, tap, 1])
        runs[position, : len(found)] = found or np.zeros((0, 3))
    return runs


class DenseEvents(Events):
    """A dense synapse; weights for a source (C, H, W) are permuted for spikes in (W, H, C)."""

    def __init__(self, synapse: DenseSynapse, source_shape: tuple[int, ...]) -> None:
        shifted = synapse.weight.astype(np.int64) << synapse.weight_exponent
        self._outputs = len(shifted)
        self._weight = _smallest(_turned(shifted, source_shape)).ravel()

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`."""
        flat = spikes.reshape(len(spikes), -1)
        kernels.connect(flat, self._weight, self._outputs, total.ravel())


class ListedEvents(Events):
    """A synapse with 8-bit weights, without groups, for small spikes: sums by `event_sums`.

    A dense synapse is a convolution with a single place. Where equal weights stand side by side, as
    behind an average pool, the spikes are summed over these windows first.

    Parameters
    ----------
    spikes:
        Range of the spikes.
    """

    def __init__(
        self, synapse: ConvSynapse | DenseSynapse, source_shape: tuple[int, ...], spikes: IntRange
    ) -> None:
        conv, source = _as_convolution(synapse, source_shape)
        self._given = (-1, *source[:0:-1], source[0])
        conv, source, area = _with_windows_first(conv, source)
        self._source, self._area, self._spikes = source, area, spikes
        self._weight = event_sums.packed(conv.weight)
        self._outputs = len(conv.weight)
        whole = -(-self._outputs // event_sums.OUTPUTS) * event_sums.OUTPUTS
        self._shape = (*conv.kernel[::-1], source[0], whole)
        self._columns = conv.met(source, 1)
        self._runs = _runs(conv.met(source, 0), joined=True)
        self._factor = 1 << conv.weight_exponent
        self._events = np.zeros(0, np.uint32)

    @classmethod
    def takes(
        cls, synapse: ConvSynapse | DenseSynapse, source_shape: tuple[int, ...], spikes: IntRange
    ) -> bool:
        """Whether these weights and spikes are small enough, and there are no groups."""
        conv, source = _as_convolution(synapse, source_shape)
        *_, area = _with_windows_first(conv, source)
        most = max(abs(spikes.low), abs(spikes.high)) * area
        low, high = int(conv.weight.min()), int(conv.weight.max())
        return conv.groups == 1 and most <= MOST_REPEATED and INT8.contains(low, high)

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`.

        Raises
        ------
        ValueRangeError
            If a spike is outside the range.
        """
        if spikes.dtype != np.int8:
            self._spikes.check("spikes", spikes)
        planes = np.ascontiguousarray(spikes, np.int8).reshape(self._given)
        channels, height, width = self._source
        if self._area > 1:
            sums = np.empty((len(planes), width, height, channels), np.int8)
            event_sums.sum_windows(planes, sums)
            planes = sums
        low, high = self._spikes.low * self._area, self._spikes.high * self._area
        if len(self._events) < planes.size * max(-low, high):
            self._events = np.empty(planes.size * max(-low, high), np.uint32)
        into = total
        if self._outputs != self._shape[-1]:
            places = total.size // self._outputs
            into = np.zeros((places, self._shape[-1]), np.int32)
        starts = np.empty((len(planes) * width, height + 1), np.uint32)
        for sign in (1, -1)[: 1 + (low < 0)]:
            found = event_sums.list_spikes(
                planes.reshape(-1), channels, low, high, sign, self._events, starts
            )
            if found < 0:
                raise ValueRangeError(
                    "a spike is outside its range",
                    found=f"{planes.min()} .. {planes.max()}",
                    allowed=f"{low} .. {high}",
                )
            if found:
                event_sums.sum_events(
                    self._events,
                    starts,
                    self._weight,
                    self._shape,
                    self._columns,
                    self._runs,
                    sign * self._factor,
                    into.reshape(-1),
                )
        if into is not total:
            total += into[:, : self._outputs].reshape(total.shape)


def _as_convolution(
    synapse: ConvSynapse | DenseSynapse, source_shape: tuple[int, ...]
) -> tuple[ConvSynapse, tuple[int, ...]]:
    """A synapse as a convolution, for a source (C, H, W); a dense one has a single place.

    Its channels are in the order of spikes (W, H, C).
    """
    if isinstance(synapse, ConvSynapse):
        return synapse, source_shape
    turned = _turned(synapse.weight, source_shape).T
    conv = ConvSynapse(
        synapse.source,
        turned.reshape(*turned.shape, 1, 1),
        weight_exponent=synapse.weight_exponent,
    )
    return conv, (turned.shape[1], 1, 1)


def _turned(weight: np.ndarray, source_shape: tuple[int, ...]) -> np.ndarray:
    """Dense weights (F_out, C * H * W) as (W * H * C, F_out)."""
    shaped = weight.reshape(-1, *source_shape)
    turned = shaped.transpose(*range(shaped.ndim - 1, 0, -1), 0)
    return np.ascontiguousarray(turned).reshape(-1, len(weight))


def _with_windows_first(
    conv: ConvSynapse, source: tuple[int, ...]
) -> tuple[ConvSynapse, tuple[int, ...], int]:
    """A convolution of sums over windows of the source, their shape (C, H, W), and the area.

    The windows have equal weights inside and are as large as stride and padding allow.
    """
    if not conv.is_even or conv.dilation != (1, 1):
        return conv, source, 1
    down, across = (_window(conv, axis) for axis in range(2))
    sums = (source[0], -(-source[1] // down), -(-source[2] // across))
    smaller = replace(
        conv,
        weight=conv.weight[:, :, ::down, ::across],
        stride=(conv.stride[0] // down, conv.stride[1] // across),
        padding=(conv.padding[0] // down, conv.padding[1] // across),
    )
    if down * across == 1 or smaller.output_shape(sums) != conv.output_shape(source):
        return conv, source, 1
    return smaller, sums, down * across


def _window(conv: ConvSynapse, axis: int) -> int:
    """Largest number of neighbouring taps along an axis that can be replaced by their sum."""
    taps = np.moveaxis(conv.weight, 2 + axis, 0)
    for size in range(gcd(len(taps), conv.stride[axis], conv.padding[axis]), 1, -1):
        fits = not any(n % size for n in (len(taps), conv.stride[axis], conv.padding[axis]))
        if fits and (taps == taps[::size].repeat(size, axis=0)).all():
            return size
    return 1


def _smallest(weight: np.ndarray) -> np.ndarray:
    """Weights as contiguous int8, int16 or int32, the smallest that fits, to read less memory."""
    low, high = int(weight.min()), int(weight.max())
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(weight, kind)
    raise TargetError("shifted weights do not fit 32 bits", found=f"{low} .. {high}")


@singledispatch
def make_events(synapse: object, source_shape: tuple[int, ...], spikes: IntRange) -> Events:
    """The events of a synapse from a source of shape (C, H, W) or (F,), for spikes in a range.

    Raises TargetError for an unknown synapse.
    """
    raise TargetError("no fast model for this synapse", found=type(synapse).__name__)


@make_events.register
def _(synapse: ConvSynapse, source_shape: tuple[int, ...], spikes: IntRange) -> Events:
    if synapse.weight.shape[1] == 1 and synapse.groups == len(synapse.weight):
        return DepthwiseEvents(synapse, source_shape)
    if ListedEvents.takes(synapse, source_shape, spikes):
        return ListedEvents(synapse, source_shape, spikes)
    return ConvEvents(synapse, source_shape)


@make_events.register
def _(synapse: DenseSynapse, source_shape: tuple[int, ...], spikes: IntRange) -> Events:
    if ListedEvents.takes(synapse, source_shape, spikes):
        return ListedEvents(synapse, source_shape, spikes)
    return DenseEvents(synapse, source_shape)
