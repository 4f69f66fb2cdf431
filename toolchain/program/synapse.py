"""Integer synapses: how the spikes of one population become currents of another.

`I = 2^weight_exponent * W s`. Shapes: convolution weights (C_out, C_in/groups, K_h, K_w),
correlation as in torch; dense weights (F_out, F_in), the source flattened in C, H, W order.
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


def _positive(node: str, name: str, pair: Pair, minimum: int) -> None:
    if len(pair) != 2 or any(int(p) != p or p < minimum for p in pair):
        raise ProgramError(f"{name} must be two integers >= {minimum}", node=node, found=pair)


@dataclass(frozen=True, eq=False)
class ConvSynapse:
    """2-D convolution from population `source`.

    Attributes
    ----------
    weight:
        int32, (C_out, C_in/groups, K_h, K_w).
    stride, padding, dilation:
        (vertical, horizontal), zero padding on both sides.
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
        if self.weight_exponent < 0:
            raise ProgramError(
                "weight_exponent must be >= 0", node=node, found=self.weight_exponent
            )

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
        sizes = []
        for axis in range(2):
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            size = (source_shape[1 + axis] + 2 * self.padding[axis] - reach) // self.stride[axis]
            if source_shape[1 + axis] + 2 * self.padding[axis] < reach:
                raise ProgramError(
                    "the kernel is larger than the padded source", node=node, found=source_shape
                )
            sizes.append(size + 1)
        return (self.weight.shape[0], sizes[0], sizes[1])

    def describe(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
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
        if self.weight_exponent < 0:
            raise ProgramError(
                "weight_exponent must be >= 0", node=node, found=self.weight_exponent
            )

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

    def describe(self) -> dict[str, Any]:
        """Everything but the weights, as JSON."""
        return {"kind": "dense", "source": self.source, "weight_exponent": self.weight_exponent}


Synapse = ConvSynapse | DenseSynapse
