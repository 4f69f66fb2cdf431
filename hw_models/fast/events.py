"""Event-driven application of a synapse, with weights in the kernels' layout.

Arrays are in Lava's order after the batch axis, (B, W, H, C) or (B, F).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import singledispatch

import numpy as np

from hw_models.fast import kernels
from toolchain.errors import TargetError
from toolchain.program.synapse import ConvSynapse, DenseSynapse

SUM_LIMIT = (1 << 31) - 1
"""Largest sum: the kernels sum in int32."""


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
        self._runs = _runs(along_h, joined=groups == 1)
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
    """Runs of `kernels.convolve` for targets (H, K_h), with neighbours joined if allowed.

    With reversed taps, the targets of stride 1 and dilation 1 are consecutive.
    """
    size, taps = targets.shape
    runs = np.zeros((size, taps, 3), np.int64)
    for position in range(size):
        found: list[list[int]] = []
        for tap, target in enumerate(targets[position, ::-1].tolist()):
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
        shaped = shifted.reshape(-1, *source_shape)
        turned = shaped.transpose(*range(shaped.ndim - 1, 0, -1), 0)
        self._outputs = len(shifted)
        self._weight = _smallest(turned).ravel()

    def send(self, spikes: np.ndarray, total: np.ndarray) -> None:
        """Add the currents, see `Events`."""
        flat = spikes.reshape(len(spikes), -1)
        kernels.connect(flat, self._weight, self._outputs, total.ravel())


def _smallest(weight: np.ndarray) -> np.ndarray:
    """Weights as contiguous int8, int16 or int32, the smallest that fits, to read less memory."""
    low, high = int(weight.min()), int(weight.max())
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.ascontiguousarray(weight, kind)
    raise TargetError("shifted weights do not fit 32 bits", found=f"{low} .. {high}")


@singledispatch
def make_events(synapse: object, source_shape: tuple[int, ...]) -> Events:
    """The events of a synapse from a source of shape (C, H, W) or (F,).

    Raises TargetError for an unknown synapse.
    """
    raise TargetError("no fast model for this synapse", found=type(synapse).__name__)


@make_events.register
def _(synapse: ConvSynapse, source_shape: tuple[int, ...]) -> Events:
    depthwise = synapse.weight.shape[1] == 1 and synapse.groups == len(synapse.weight)
    return (DepthwiseEvents if depthwise else ConvEvents)(synapse, source_shape)


@make_events.register
def _(synapse: DenseSynapse, source_shape: tuple[int, ...]) -> Events:
    return DenseEvents(synapse, source_shape)
