"""Encoding of one layer's spikes over a block of steps: unsigned bytes, channels last.

int8 convolutions take unsigned bytes; `offset` is the byte for "no spike", so
that signed spikes fit. Channels are last because convolutions are fastest that way; a flat layer
(F,) counts as one of H = W = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.int_range import IntRange
from toolchain.program.synapse import Sliding

BYTE_VALUES = 256
INT8 = IntRange.signed(8)


def coded_offset(spikes: IntRange) -> int | None:
    """Offset that makes spikes in this range unsigned bytes; None if they do not fit."""
    low, high = min(spikes.low, 0), max(spikes.high, 0)
    return -low if high - low < BYTE_VALUES else None


def channels_last(values: np.ndarray) -> np.ndarray:
    """An array (T, n, C, H, W) or (T, n, F) as (T, n, H, W, C), in that order in memory."""
    if values.ndim == 3:
        return np.ascontiguousarray(values[:, :, None, None, :])
    return np.ascontiguousarray(values.transpose(0, 1, 3, 4, 2))


def channels_first(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values with any leading axes and (H, W, C) as a view (..., C, H, W) or (..., F)."""
    return values[..., 0, 0, :] if len(shape) == 1 else np.moveaxis(values, -1, -3)


def plane_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a layer of shape (C, H, W) or (F,)."""
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else (1, 1, shape[0])


@dataclass(frozen=True)
class CodedSpikes:
    """Encoded spikes of one layer.

    Attributes
    ----------
    values:
        uint8 (T, n, H, W, C), `offset` for no spike; or, with offset 0, int64 if a graded input
        does not fit a byte. T is 1 if all steps are equal.
    shape:
        (C, H, W) or (F,) of the layer.
    """

    values: np.ndarray
    offset: int
    shape: tuple[int, ...]

    @classmethod
    def of_input(cls, inputs: np.ndarray, spikes: IntRange) -> CodedSpikes:
        """Graded input spikes of some wake steps, int (T, n, ...); T is 1 if all are equal."""
        laid_out = channels_last(inputs)
        offset = coded_offset(spikes)
        shape = inputs.shape[2:]
        if offset is None:
            return cls(laid_out.astype(np.int64), 0, shape)
        return cls((laid_out + offset).astype(np.uint8), offset, shape)

    @classmethod
    def silence(cls, steps: int, samples: int, offset: int, shape: tuple[int, ...]) -> CodedSpikes:
        """Spikes of a silent layer, as a read-only view of a single byte."""
        whole = (steps, samples, *plane_of(shape))
        return cls(np.broadcast_to(np.uint8(offset), whole), offset, shape)

    @property
    def is_byte(self) -> bool:
        """Whether the values are bytes."""
        return self.values.dtype == np.uint8

    def of_samples(self, part: slice) -> CodedSpikes:
        """The spikes of the samples in `part`, as a view."""
        return CodedSpikes(self.values[:, part], self.offset, self.shape)

    def laid_out(self, geometry: Sliding) -> CodedSpikes:
        """The spikes on the plane that a kernel sees, with silence around and between them."""
        *leading, height, width, channels = self.values.shape
        size, (rows, columns) = geometry.laid_out((height, width))
        values = np.full((*leading, *size, channels), self.offset, self.values.dtype)
        values[:, :, rows, columns] = self.values
        return CodedSpikes(values, self.offset, (channels, *size))

    def as_int8(self) -> np.ndarray:
        """The spikes as int8 (T, n, H, W, C), without the offset; a view if it is 0."""
        values = self.values if self.offset == 0 else self.values - np.uint8(self.offset)
        return values.view(np.int8)

    def spikes(self) -> np.ndarray:
        """The spikes as int8 (T, n, C, H, W) or (T, n, F), without offset; a view if it is 0."""
        return channels_first(self.as_int8(), self.shape)
