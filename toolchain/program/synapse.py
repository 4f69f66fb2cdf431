"""Integer synapses: how the spikes of one population become the currents of another.

`I = 2^weight_exponent * W s`. Shapes: convolution weights (C_out, C_in/groups, K_h, K_w),
correlation as in torch; dense weights (F_out, F_in), the source flattened in C, H, W order.
A `WindowSynapse` has no weights: it passes on the spikes of each window of a pool separately.
A new kind of synapse is one dataclass here and one handler in each pass that dispatches on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.errors import ProgramError

Pair = tuple[int, int]
MAX_WEIGHT_EXPONENT = 31
"""Largest exponent: far above what any state holds, and shifted sums of weights fit int64."""


def _positive(node: str, name: str, pair: Pair, minimum: int) -> None:
    if len(pair) != 2 or any(int(p) != p or p < minimum for p in pair):
        raise ProgramError(f"{name} must be two integers >= {minimum}", node=node, found=pair)


def _check_exponent(node: str, exponent: int) -> None:
    if not 0 <= exponent <= MAX_WEIGHT_EXPONENT:
        raise ProgramError(
            f"weight_exponent must be 0 .. {MAX_WEIGHT_EXPONENT}", node=node, found=exponent
        )


class Sliding:
    """Geometry of a kernel that slides over a plane; pairs are (vertical, horizontal).

    The kernel sees the source's rows `upsample` apart, with zeros between them, `padding` zeros
    above them and `padding + overhang` below; columns likewise. Simulators, engines and Lava's
    processes take this from `laid_out` or `met`.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    overhang: Pair
    upsample: Pair = (1, 1)

    @property
    def end(self) -> Pair:
        """Zeros below and to the right."""
        return (self.padding[0] + self.overhang[0], self.padding[1] + self.overhang[1])

    @property
    def is_even(self) -> bool:
        """Whether the source is laid out without gaps, and equally on both sides."""
        return self.upsample == (1, 1) and self.overhang == (0, 0)

    @property
    def meets_zeros(self) -> bool:
        """Whether a kernel may meet zeros, around the source or between its values."""
        return any((*self.padding, *self.end)) or self.upsample != (1, 1)

    @property
    def apart(self) -> Pair:
        """Taps from one that meets a value to the next that meets one at the same place."""
        down, across = (u // gcd(u, d) for u, d in zip(self.upsample, self.dilation, strict=True))
        return down, across

    def extras(self) -> dict[str, list[int]]:
        """`upsample` and `overhang`, each only where it is not neutral."""
        pairs = {"upsample": (self.upsample, (1, 1)), "overhang": (self.overhang, (0, 0))}
        return {name: list(pair) for name, (pair, neutral) in pairs.items() if pair != neutral}

    def laid_out(self, source: Sequence[int]) -> tuple[Pair, tuple[slice, slice]]:
        """Size of the plane that the kernel sees, and where the source (..., H, W) is in it."""
        sizes, places = [], []
        for size, step, begin, end in zip(
            source[-2:], self.upsample, self.padding, self.end, strict=True
        ):
            last = begin + (size - 1) * step
            sizes.append(last + 1 + end)
            places.append(slice(begin, last + 1, step))
        return (sizes[0], sizes[1]), (places[0], places[1])

    def placed(self, source: Sequence[int]) -> Pair:
        """Number of places of the kernel down and across; below 1 if it does not fit."""
        sizes, _ = self.laid_out(source)
        down, across = (
            (size - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, dilation, stride in zip(
                sizes, self.kernel, self.dilation, self.stride, strict=True
            )
        )
        return down, across

    def met(self, source: Sequence[int], axis: int) -> np.ndarray:
        """Row (axis 0) or column of the source under each tap at each place: int64 (places, taps).

        -1 stands for a zero around the source or between its values.
        """
        sizes, places = self.laid_out(source)
        seen = np.full(sizes[axis], -1)
        seen[places[axis]] = np.arange(source[axis - 2])
        starts = np.arange(self.placed(source)[axis]) * self.stride[axis]
        return seen[starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]]


def _check_geometry(node: str, geometry: Sliding) -> None:
    _positive(node, "stride", geometry.stride, 1)
    _positive(node, "padding", geometry.padding, 0)
    _positive(node, "dilation", geometry.dilation, 1)
    _positive(node, "padding below and to the right", geometry.end, 0)


def _plane(synapse: Sliding, source_shape: tuple[int, ...], node: str) -> Pair:
    """(H_out, W_out) of a sliding kernel; raises ProgramError if it does not fit (C, H, W)."""
    plane = synapse.placed(source_shape)
    if min(plane) < 1:
        raise ProgramError(
            "the kernel is larger than the padded source", node=node, found=source_shape
        )
    return plane


@dataclass(frozen=True, eq=False)
class ConvSynapse(Sliding):
    """2-D convolution of the spikes of population `source`.

    Attributes
    ----------
    weight:
        int32, (C_out, C_in/groups, K_h, K_w).
    stride, padding, dilation:
        (vertical, horizontal); zero padding on both sides.
    weight_exponent:
        The summed current is shifted left by this many bits (>= 0).
    upsample:
        (vertical, horizontal) distance of the source's rows and columns, with zeros between them: a
        transposed convolution has its stride here.
    overhang:
        (vertical, horizontal) zeros below and to the right beyond `padding`; negative where there
        are fewer than above and to the left.
    """

    source: str
    weight: np.ndarray
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    weight_exponent: int = 0
    upsample: Pair = (1, 1)
    overhang: Pair = (0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen_array(self.weight, np.int32))
        node = f"synapse from {self.source}"
        if self.weight.ndim != 4:
            raise ProgramError(
                "convolution weights need 4 axes", node=node, found=self.weight.shape
            )
        _check_geometry(node, self)
        _positive(node, "upsample", self.upsample, 1)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ProgramError("groups must divide C_out", node=node, found=self.groups)
        _check_exponent(node, self.weight_exponent)

    def output_shape(self, source_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C_out, H_out, W_out) for a source of shape (C_in, H, W).

        Raises
        ------
        ProgramError
            If the source does not have three axes, or its channels do not fit the weights.
        """
        node = f"synapse from {self.source}"
        if len(source_shape) != 3:
            raise ProgramError(
                "a convolution needs a source of (C, H, W)", node=node, found=source_shape
            )
        c_in = self.weight.shape[1] * self.groups
        if source_shape[0] != c_in:
            raise ProgramError("channels differ", node=node, found=source_shape[0], allowed=c_in)
        return (self.weight.shape[0], *_plane(self, source_shape, node))

    @property
    def kernel(self) -> Pair:  # type: ignore[override]
        """(vertical, horizontal) size."""
        return (self.weight.shape[2], self.weight.shape[3])

    def on_plane(self, source: tuple[int, ...]) -> tuple[ConvSynapse, tuple[int, ...]]:
        """The same convolution of the plane that it sees (`laid_out`), and the plane's (C, H, W).

        Unchanged if it `is_even`: libraries know the padding.
        """
        if self.is_even:
            return self, source
        plain = replace(self, padding=(0, 0), upsample=(1, 1), overhang=(0, 0))
        return plain, (source[0], *self.laid_out(source)[0])

    def arrays(self) -> dict[str, np.ndarray]:
        """Integer weights (C', C / groups, K_h, K_w), as "weight"."""
        return {"weight": self.weight}

    def describe(self) -> dict[str, Any]:
        """All fields except the weights, as JSON; `upsample` and `overhang` only where used."""
        described = {
            "kind": "conv",
            "source": self.source,
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
            "groups": self.groups,
            "weight_exponent": self.weight_exponent,
        }
        return described | self.extras()


@dataclass(frozen=True, eq=False)
class DenseSynapse:
    """All-to-all connection from population `source`, flattened in C, H, W order.

    Attributes
    ----------
    weight:
        int32, (F_out, F_in).
    weight_exponent:
        The summed current is shifted left by this many bits (>= 0).
    """

    source: str
    weight: np.ndarray
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen_array(self.weight, np.int32))
        node = f"synapse from {self.source}"
        if self.weight.ndim != 2:
            raise ProgramError("dense weights need 2 axes", node=node, found=self.weight.shape)
        _check_exponent(node, self.weight_exponent)

    def output_shape(self, source_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(F_out,) for a source of any shape with F_in elements.

        Raises
        ------
        ProgramError
            If the number of source elements is not F_in.
        """
        if prod(source_shape) != self.weight.shape[1]:
            raise ProgramError(
                "dense weights do not fit the source",
                node=f"synapse from {self.source}",
                found=f"{prod(source_shape)} elements {source_shape}",
                allowed=f"{self.weight.shape[1]} elements",
            )
        return (self.weight.shape[0],)

    def arrays(self) -> dict[str, np.ndarray]:
        """Integer weights (F', F), as "weight"."""
        return {"weight": self.weight}

    def describe(self) -> dict[str, Any]:
        """All fields except the weights, as JSON."""
        return {"kind": "dense", "source": self.source, "weight_exponent": self.weight_exponent}


@dataclass(frozen=True)
class WindowSynapse(Sliding):
    """Windows of a pool over population `source`, channel by channel; only for a LIPool.

    It passes on each spike of a window separately: the current has shape
    (N, C, H_out, W_out, K_h * K_w), with the window in row order and 0 in the padding.

    Attributes
    ----------
    kernel:
        (vertical, horizontal) size of a window.
    stride, padding, dilation:
        (vertical, horizontal), as in torch's max pool.
    overhang:
        (vertical, horizontal) padding below and to the right beyond `padding`; negative where
        there is less than above and to the left.
    """

    source: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    overhang: Pair = (0, 0)

    def __post_init__(self) -> None:
        node = f"synapse from {self.source}"
        _positive(node, "kernel", self.kernel, 1)
        _check_geometry(node, self)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ProgramError(
                "a pool's padding must be at most half its kernel",
                node=node,
                found=self.padding,
                allowed=f"at most half of {self.kernel}",
            )

    def output_shape(self, source_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H_out, W_out) for a source of shape (C, H, W).

        Raises
        ------
        ProgramError
            If the source does not have three axes, or a window contains only padding, whose
            maximum would be minus infinity in torch and 0 here.
        """
        node = f"synapse from {self.source}"
        if len(source_shape) != 3:
            raise ProgramError("a pool needs a source of (C, H, W)", node=node, found=source_shape)
        plane = _plane(self, source_shape, node)
        for axis in range(2):
            # The last window first, so that a damaged overhang makes no long list of windows.
            count, size = plane[axis], source_shape[1 + axis]
            hollow = (count - 1) * self.stride[axis] - self.padding[axis] >= size
            if not hollow:
                start = np.arange(count) * self.stride[axis] - self.padding[axis]
                first = np.maximum(0, -(start // self.dilation[axis]))
                inside = start + first * self.dilation[axis] < size
                hollow = not (inside & (first < self.kernel[axis])).all()
            if hollow:
                raise ProgramError(
                    "a window of the pool holds nothing but padding", node=node, found=source_shape
                )
        return (source_shape[0], *plane)

    def arrays(self) -> dict[str, np.ndarray]:
        """Integer arrays by name: a window has none."""
        return {}

    def describe(self) -> dict[str, Any]:
        """All fields and the kind of synapse, as JSON; `overhang` only where there is any."""
        described = {
            "kind": "window",
            "source": self.source,
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
        }
        return described | self.extras()


Synapse = ConvSynapse | DenseSynapse | WindowSynapse
