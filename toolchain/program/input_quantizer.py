"""Quantization of real-valued samples to the graded integer spikes of the input layer.

Normalisation (mean and std per channel) comes first, then quantization, so that zero padding in
the network means a real zero. A value outside the quantizer's range is an error: nothing is
clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from toolchain.errors import DataError, ProgramError, ValueRangeError
from toolchain.int_range import IntRange

GRID_TOLERANCE = 1e-9
"""Tolerance in units of `scale`; float64 rounding of a mean given as a fraction is far below it."""


@dataclass(frozen=True)
class InputQuantizer:
    """`q = round_half_even(((x - mean) / std) / scale)`, an integer of `bits` bits.

    Attributes
    ----------
    shape:
        Sample shape, (C, H, W) or (F,).
    scale:
        Real value of one unit: normalised x = scale * q.
    bits, signed:
        Width and sign of the graded input spike.
    mean, std:
        One value per channel (first axis of `shape`), or one for all channels.
    """

    shape: tuple[int, ...]
    scale: float
    bits: int = 8
    signed: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not 0.0 < self.scale < float("inf"):
            raise ProgramError(
                "the input scale must be positive and finite", node="input", found=self.scale
            )
        if not self.shape or any(s < 1 for s in self.shape):
            raise ProgramError("an input shape is needed", node="input", found=self.shape)
        _check_normalisation(self.shape, self.mean, self.std)

    @property
    def range(self) -> IntRange:
        """Range of the input spikes."""
        return IntRange.signed(self.bits) if self.signed else IntRange.unsigned(self.bits)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the samples.

        Raises
        ------
        DataError
            If the samples are no images.
        """
        if len(self.shape) != 3:
            raise DataError("the network takes no images", node="input", found=self.shape)
        return (self.shape[1], self.shape[2])

    @classmethod
    def for_interval(
        cls,
        shape: tuple[int, ...],
        low: float,
        high: float,
        *,
        bits: int = 8,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        levels: int | None = None,
    ) -> InputQuantizer:
        """The finest quantizer for every real x in [low, high], which is normalised first.

        `levels` = k states that x is a multiple of (high - low) / k, with low = 0 (k = 255 for
        pixels). If the mean is such a multiple too (0, or 128/255 for pixels), and mean and std are
        the same for all channels, these data are exact, in as few bits as they need up to `bits`.

        Raises
        ------
        DataError
            If the interval is empty or not finite, or needs a sign that one bit cannot hold.
        """
        _check_normalisation(shape, mean, std)
        normalised = [((b - m) / s) for b in (low, high) for m, s in _pairs(mean, std)]
        lowest, highest = min(normalised), max(normalised)
        signed = lowest < 0
        if signed and bits < 2:
            raise DataError(
                "an input with values below zero needs a sign and at least one bit more",
                node="input",
                found=f"{bits} bit, {lowest:.6g} .. {highest:.6g} after normalisation",
                remedy="input_bits=2 or more",
            )
        largest = IntRange.signed(bits).high if signed else IntRange.unsigned(bits).high
        extreme = max(abs(lowest), abs(highest))
        if extreme == 0 or not np.isfinite(extreme):
            raise DataError(
                "the input interval must be finite and not empty", found=f"{low} .. {high}"
            )
        grid = _on_grid(levels, (low, high), mean, std) if levels is not None else None
        if grid is not None:
            below, above = grid
            needed = max(above.bit_length(), (below - 1).bit_length() if below else 0) + signed
            if needed <= bits:
                unit = (high - low) / (below + above) / std[0]
                return cls(shape, unit, needed, signed, mean, std)
        return cls(shape, extreme / largest, bits, signed, mean, std)

    def quantize(self, samples: np.ndarray) -> np.ndarray:
        """Integer input spikes, int32 (N, ...), for real samples (N, ...).

        Samples may leave out axes of size 1, (H, W) for (1, H, W), (C, L) for (C, 1, L), or be
        flat: (C * H * W,), in this order.

        Raises
        ------
        DataError
            If the sample shape differs, or a value is not finite or outside the range.
        """
        samples = np.asarray(samples)
        sizes = [tuple(s for s in shape if s > 1) for shape in (samples.shape[1:], self.shape)]
        flat = samples.ndim == 2 and samples.shape[1] == prod(self.shape)
        if (sizes[0] == sizes[1] or flat) and len(samples):
            samples = samples.reshape(len(samples), *self.shape)
        if samples.shape[1:] != self.shape:
            raise DataError(
                "the samples do not have the shape the network was made for",
                node="input",
                found=samples.shape[1:],
                allowed=self.shape,
                remedy="move the channels to the front: samples.transpose(0, 3, 1, 2)"
                if samples.shape[1:] == (*self.shape[1:], self.shape[0])
                else "choose the data source the network was trained on",
            )
        if not np.isfinite(samples).all():
            raise DataError("samples hold NaN or infinity", node="input")
        levels = np.rint(self.normalise(samples) / self.scale)
        try:
            return self.range.check("input", levels.astype(np.int64)).astype(np.int32)
        except ValueRangeError as error:
            raise DataError(
                "samples lie outside the input quantizer's range; nothing is clipped",
                node="input",
                found=error.found,
                allowed=f"{self.range} in units of {self.scale:.6g}",
                remedy="scale the data as in training, or convert again with a wider input range",
            ) from error

    def normalise(self, samples: np.ndarray) -> np.ndarray:
        """Normalised values of real samples, the float network's input: float64 (N, ...)."""
        channel_shape = (-1, *([1] * (len(self.shape) - 1)))
        mean = np.asarray(self.mean, np.float64).reshape(channel_shape)
        std = np.asarray(self.std, np.float64).reshape(channel_shape)
        normalised: np.ndarray = (np.asarray(samples, np.float64) - mean) / std
        return normalised

    def describe(self) -> dict[str, Any]:
        """All fields by name, as JSON; `scale` is real value per integer."""
        return {
            "shape": list(self.shape),
            "scale": self.scale,
            "bits": self.bits,
            "signed": self.signed,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_description(cls, fields: dict[str, Any]) -> InputQuantizer:
        """The quantizer from the result of `describe`."""
        return cls(
            tuple(int(s) for s in fields["shape"]),
            float(fields["scale"]),
            int(fields["bits"]),
            bool(fields["signed"]),
            tuple(float(m) for m in fields["mean"]),
            tuple(float(s) for s in fields["std"]),
        )


def _check_normalisation(
    shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Raise ProgramError unless mean and std have one value, or one per channel, and are valid."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, shape[0]):
            raise ProgramError(
                f"{name} needs one value, or one per channel", node="input", found=values
            )
        if not np.isfinite(values).all():
            raise ProgramError(f"{name} must be finite", node="input", found=values)
    if min(std) <= 0:
        raise ProgramError("std must be positive", node="input", found=std)


def _pairs(mean: tuple[float, ...], std: tuple[float, ...]) -> list[tuple[float, float]]:
    width = max(len(mean), len(std))
    wide_mean = mean * width if len(mean) == 1 else mean
    wide_std = std * width if len(std) == 1 else std
    return list(zip(wide_mean, wide_std, strict=True))


def _on_grid(
    levels: int,
    interval: tuple[float, float],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[int, int] | None:
    """Units below and above a common mean that is one of `levels` + 1 grid points; else None."""
    low, high = interval
    if low != 0 or len(set(mean)) > 1 or len(set(std)) > 1:
        return None
    below = mean[0] * levels / high
    if not 0 <= round(below) <= levels or abs(below - round(below)) > GRID_TOLERANCE:
        return None
    return round(below), levels - round(below)
