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
    per_step:
        Whether a sample is a sequence, (T, *shape): one tensor for each of the T wake steps.
        Otherwise its one tensor, of `shape`, is given at every wake step.
    """

    shape: tuple[int, ...]
    scale: float
    bits: int = 8
    signed: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    per_step: bool = False

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
    def channel_axis(self) -> int:
        """Axis of the channels in samples (N, C, ...), of sequences (N, T, C, ...)."""
        return 2 if self.per_step else 1

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
        per_step: bool = False,
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
                return cls(shape, unit, needed, signed, mean, std, per_step)
        return cls(shape, extreme / largest, bits, signed, mean, std, per_step)

    def quantize(self, samples: np.ndarray) -> np.ndarray:
        """Integer input spikes, int32, for real samples: of the shape of `shaped`.

        Raises
        ------
        DataError
            If the sample shape differs, or a value is not finite or outside the range.
        """
        samples = self.shaped(samples)
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

    def shaped(self, samples: np.ndarray) -> np.ndarray:
        """Samples (N, *shape), or sequences (N, T, *shape) of any length, with all their axes.

        They may come without axes of size 1, (H, W) for (1, H, W), (C, L) for (C, 1, L); those that
        are no sequences may be flat: (C * H * W,), in this order.

        Raises
        ------
        DataError
            If the sample shape differs.
        """
        samples = np.asarray(samples)
        found, wanted = samples.shape[1:], self.shape
        if self.per_step:
            wanted = (max(1, prod(found) // prod(self.shape)), *self.shape)
        sizes = [tuple(s for s in shape if s > 1) for shape in (found, wanted)]
        flat = samples.ndim == 2 and found == (prod(wanted),) and not self.per_step
        if (sizes[0] == sizes[1] or flat) and len(samples):
            return samples.reshape(len(samples), *wanted)
        if found != wanted:
            raise DataError(
                "the samples do not have the shape the network was made for",
                node="input",
                found=found,
                allowed=("T", *self.shape) if self.per_step else self.shape,
                remedy=self._remedy(found),
            )
        return samples

    def _remedy(self, found: tuple[int, ...]) -> str:
        """What to do about samples of the shape `found`."""
        if not self.per_step and found[1:] == self.shape:
            return "convert with input_per_step=True: the samples have a tensor for each step"
        if found == (*self.shape[1:], self.shape[0]):
            return "move the channels to the front: samples.transpose(0, 3, 1, 2)"
        return "choose the data source the network was trained on"

    def normalise(self, samples: np.ndarray) -> np.ndarray:
        """Normalised values of real samples, float64 of their shape: axes end in `shape`."""
        channel_shape = (-1, *([1] * (len(self.shape) - 1)))
        mean = np.asarray(self.mean, np.float64).reshape(channel_shape)
        std = np.asarray(self.std, np.float64).reshape(channel_shape)
        normalised: np.ndarray = (np.asarray(samples, np.float64) - mean) / std
        return normalised

    def float_samples(self, samples: np.ndarray) -> np.ndarray:
        """Normalised samples of the float network, float64 (N, ...), for real samples as `shaped`.

        It has no time: of a sequence it sees the mean over its steps, which given at each of them
        would have the same sum.
        """
        return self._mean(self.normalise(self.shaped(samples)))

    def mean_inputs(self, inputs: np.ndarray) -> np.ndarray:
        """Graded spikes as a network without time sees them, (N, ...): of sequences their mean."""
        return self._mean(inputs)

    def _mean(self, values: np.ndarray) -> np.ndarray:
        mean: np.ndarray = values.mean(1) if self.per_step else values
        return mean

    def describe(self) -> dict[str, Any]:
        """All fields by name, as JSON; `scale` is real value per integer.

        `per_step` is there only if it is true, since older programs have no such field.
        """
        return {
            "shape": list(self.shape),
            "scale": self.scale,
            "bits": self.bits,
            "signed": self.signed,
            "mean": list(self.mean),
            "std": list(self.std),
            **({"per_step": True} if self.per_step else {}),
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
            bool(fields.get("per_step", False)),
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
