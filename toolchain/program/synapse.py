"""Integer synapses: how the spikes of one population become the currents of another.

`I = 2^weight_exponent * W s`. Shapes: convolution weights (C_out, C_in/groups, K_h, K_w),
correlation as in torch; dense weights (F_out, F_in), the source flattened in C, H, W order.
A `WindowSynapse` has no weights: it passes on the spikes of each window of a pool separately.
A new kind of synapse is one dataclass here and one handler in each pass that dispatches on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
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


def _plane(
    synapse: ConvSynapse | WindowSynapse,
    kernel: Pair,
    source_shape: tuple[int, ...],
    overhang: Pair = (0, 0),
) -> Pair:
    """(H_out, W_out) of a sliding kernel; raises ProgramError if it does not fit (C, H, W)."""
    sizes = []
    for axis in range(2):
        reach = synapse.dilation[axis] * (kernel[axis] - 1) + 1
        padded = source_shape[1 + axis] + 2 * synapse.padding[axis] + overhang[axis]
        if padded < reach:
            raise ProgramError(
                "the kernel is larger than the padded source",
                node=f"synapse from {synapse.source}",
                found=source_shape,
            )
        sizes.append((padded - reach) // synapse.stride[axis] + 1)
    return (sizes[0], sizes[1])


@dataclass(frozen=True, eq=False)
class ConvSynapse:
    """2-D convolution of the spikes of population `source`.

    Attributes
    ----------
    weight:
        int32, (C_out, C_in/groups, K_h, K_w).
    stride, padding, dilation:
        (vertical, horizontal); zero padding on both sides.
    weight_exponent:
        The summed current is shifted left by this many bits (>= 0).
    """

    source: str
    weight: np.ndarray
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    weight_exponent: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", frozen_array(self.weight, np.int32))
        node = f"synapse from {self.source}"
        if self.weight.ndim != 4:
            raise ProgramError(
                "convolution weights need 4 axes", node=node, found=self.weight.shape
            )
        _positive(node, "stride", self.stride, 1)
        _positive(node, "padding", self.padding, 0)
        _positive(node, "dilation", self.dilation, 1)
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
        kernel = (self.weight.shape[2], self.weight.shape[3])
        return (self.weight.shape[0], *_plane(self, kernel, source_shape))

    def arrays(self) -> dict[str, np.ndarray]:
        """Integer weights (C', C / groups, K_h, K_w), as "weight"."""
        return {"weight": self.weight}

    def describe(self) -> dict[str, Any]:
        """All fields except the weights, as JSON."""
        return {
            "kind": "conv",
            "source": self.source,
            "stride": list(self.stride),
            "padding": list(self.padding),
            "dilation": list(self.dilation),
            "groups": self.groups,
            "weight_exponent": self.weight_exponent,
        }


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
class WindowSynapse:
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
        _positive(node, "stride", self.stride, 1)
        _positive(node, "padding", self.padding, 0)
        _positive(node, "dilation", self.dilation, 1)
        _positive(node, "padding below and to the right", self._end, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ProgramError(
                "a pool's padding must be at most half its kernel",
                node=node,
                found=self.padding,
                allowed=f"at most half of {self.kernel}",
            )

    @property
    def _end(self) -> Pair:
        """Padding below and to the right."""
        return (self.padding[0] + self.overhang[0], self.padding[1] + self.overhang[1])

    @property
    def border(self) -> tuple[int, int, int, int]:
        """Padding to the left, to the right, above and below: the order of torch's pad."""
        (above, left), (below, right) = self.padding, self._end
        return (left, right, above, below)

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
        plane = _plane(self, self.kernel, source_shape, self.overhang)
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
        return described | ({"overhang": list(self.overhang)} if any(self.overhang) else {})


Synapse = ConvSynapse | DenseSynapse | WindowSynapse
