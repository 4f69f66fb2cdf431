"""Event-driven application of a synapse, with weights in the kernels' layout.

Arrays are in Lava's order after the batch axis, (B, W, H, C) or (B, F).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch
from math import gcd, prod

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
    found: list[list[list[int]]] = []
    for of_place in targets.tolist():
        found.append([])
        for tap, target in enumerate(of_place):
            if target < 0:
                continue
            if joined and found[-1]:
                last = found[-1][-1]
                if (last[0] + last[2], last[1] + last[2]) == (target, tap):
                    last[2] += 1
                    continue
            found[-1].append([target, tap, 1])
    runs = np.zeros((len(found), max(1, *map(len, found)), 3), np.int64)
    for place, some in enumerate(found):
        runs[place, : len(some)] = some or np.zeros((0, 3))
    return runs


class DenseEvents(Events):
    """A dense synapse; weights for a source (C, H, W) are permuted for spikes in (W, H, C)."""

    def __init__(self, synapse: DenseSynapse, source_shape: tuple[int, ...]) -> None:
        shifted = synapse.weight.astype(np.int64) << synapse.weight_exponent
        self._outputs = len(shifted)
        shaped = shifted.reshape(-1, *source_shape)
        turned = shaped.transpose(*range(shaped.ndim - 1, 0, -1), 0)
        self._weight = _smallest(turned).ravel()

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`."""
        flat = spikes.reshape(len(spikes), -1)
        kernels.connect(flat, self._weight, self._outputs, total.ravel())


@dataclass(frozen=True)
class _Listed:
    """What `event_sums` computes: a convolution of sums over windows that do not overlap.

    Attributes
    ----------
    weight:
        int8 (C', C, K_h, K_w).
    source:
        (C, H, W) of the spikes.
    windows:
        (vertical, horizontal) size of a window.
    rows, columns:
        (places, taps): window that a tap meets, or -1 for none.
    """

    weight: np.ndarray
    source: tuple[int, ...]
    windows: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(
        cls, synapse: ConvSynapse | DenseSynapse, source_shape: tuple[int, ...], spikes: IntRange
    ) -> _Listed | None:
        """The form of a synapse; None if it has groups, or weights or spikes are too large."""
        weight = synapse.weight
        if not INT8.contains(int(weight.min()), int(weight.max())):
            return None
        weight = weight.astype(np.int8)
        if isinstance(synapse, DenseSynapse):
            turned = weight.reshape(-1, *source_shape)
            turned = turned.transpose(0, *range(turned.ndim - 1, 0, -1))
            turned, one = turned.reshape(*weight.shape, 1, 1), np.zeros((1, 1), np.int64)
            found = cls(turned, (weight.shape[1], 1, 1), (1, 1), one, one)
        else:
            down, across = (_window(synapse, weight, axis) for axis in range(2))
            rows, columns = (synapse.met(source_shape, axis) for axis in range(2))
            found = cls(
                weight[:, :, ::down, ::across],
                source_shape,
                (down, across),
                rows[:, ::down] // down,
                columns[:, ::across] // across,
            )
            if synapse.groups != 1:
                return None
        most = max(abs(spikes.low), abs(spikes.high)) * prod(found.windows)
        return found if most <= MOST_REPEATED else None


def _window(conv: ConvSynapse, weight: np.ndarray, axis: int) -> int:
    """Largest number of neighbouring taps along an axis that a sum of spikes can replace.

    They have equal weights, and stride and padding are multiples of it.
    """
    taps = np.moveaxis(weight, 2 + axis, 0)
    whole = gcd(len(taps), conv.stride[axis], conv.padding[axis])
    if conv.dilation[axis] != 1 or conv.upsample[axis] != 1:
        return 1
    for size in range(whole, 1, -1):
        parts = [taps[k::size] for k in range(size)]
        if whole % size == 0 and all(np.array_equal(parts[0], part) for part in parts[1:]):
            return size
    return 1


class ListedEvents(Events):
    """A synapse with 8-bit weights, without groups, for small spikes: sums by `event_sums`.

    A dense synapse is a convolution with a single place. Where equal weights stand side by side, as
    behind an average pool, the spikes are summed over these windows first.

    Parameters
    ----------
    exponent:
        The sums are shifted left by this many bits.
    spikes:
        Range of the spikes.
    """

    def __init__(self, form: _Listed, exponent: int, spikes: IntRange) -> None:
        channels, height, width = form.source
        down, across = form.windows
        self._given = (-1, width, height, channels)
        self._summed = (-(-width // across), -(-height // down), channels)
        self._spikes, self._area = spikes, down * across
        self._weight = event_sums.packed(form.weight)
        self._outputs = len(form.weight)
        whole = -(-self._outputs // event_sums.OUTPUTS) * event_sums.OUTPUTS
        self._shape = (*form.weight.shape[:1:-1], channels, whole)
        self._columns, self._runs = form.columns, _runs(form.rows, joined=True)
        self._factor = 1 << exponent
        self._events = np.zeros(0, np.uint32)

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`.

        Raises
        ------
        ValueRangeError
            If a spike is outside the range.
        """
        low, high = int(spikes.min()), int(spikes.max())
        if not self._spikes.contains(low, high):
            raise ValueRangeError(
                "a spike is outside its range", found=f"{low} .. {high}", allowed=str(self._spikes)
            )
        planes = np.ascontiguousarray(spikes, np.int8).reshape(self._given)
        width, height, channels = self._summed
        if self._area > 1:
            sums = np.empty((len(planes), *self._summed), np.int8)
            event_sums.sum_windows(planes, sums)
            planes, low, high = sums, int(sums.min()), int(sums.max())
        if len(self._events) < planes.size * max(-low, high):
            self._events = np.empty(planes.size * max(-low, high), np.uint32)
        into = total
        if self._outputs != self._shape[-1]:
            places = total.size // self._outputs
            into = np.zeros((places, self._shape[-1]), np.int32)
        starts = np.empty((len(planes) * width, height + 1), np.uint32)
        for sign, most in ((1, high), (-1, -low)):
            if most > 0:
                event_sums.list_spikes(
                    planes.reshape(-1), channels, most, sign, self._events, starts
                )
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
    form = _Listed.of(synapse, source_shape, spikes)
    if form:
        return ListedEvents(form, synapse.weight_exponent, spikes)
    return ConvEvents(synapse, source_shape)


@make_events.register
def _(synapse: DenseSynapse, source_shape: tuple[int, ...], spikes: IntRange) -> Events:
    form = _Listed.of(synapse, source_shape, spikes)
    if form:
        return ListedEvents(form, synapse.weight_exponent, spikes)
    return DenseEvents(synapse, source_shape)
