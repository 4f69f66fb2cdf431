"""The float program: the traced network as immutable nodes with float64 arrays.

One node an operation, named by the qualified path of the module it came from, in topological
order. Passes (BatchNorm folding, pool folding) return a new program. Shapes leave out the
batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.errors import ConversionError, ProgramError
from toolchain.program.synapse import Pair

Shape = tuple[int, ...]


_ARRAYS = ("weight", "bias", "gain", "offset", "threshold")


@dataclass(frozen=True, eq=False)
class _Node:
    """What every node has: a name, and the name of the node it takes its input from."""

    name: str
    source: str

    def __post_init__(self) -> None:
        for field in _ARRAYS:
            if not hasattr(self, field):
                continue
            array = frozen_array(getattr(self, field), np.float64)
            object.__setattr__(self, field, array)
            if not np.isfinite(array).all():
                raise ConversionError(
                    f"{field} holds NaN or infinity",
                    node=self.name,
                    found=f"{int((~np.isfinite(array)).sum())} of {array.size} values",
                    remedy="training diverged or the checkpoint is damaged; "
                    "convert an earlier checkpoint",
                )


@dataclass(frozen=True, eq=False)
class Input(_Node):
    """The network's input, of shape (C, H, W) or (F,); its source is the empty string."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Conv2d(_Node):
    """Correlation as in torch; weight (C_out, C_in/groups, K_h, K_w), bias (C_out,)."""

    weight: np.ndarray
    bias: np.ndarray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


@dataclass(frozen=True, eq=False)
class Linear(_Node):
    """weight (F_out, F_in), bias (F_out,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class BatchNorm(_Node):
    """`y = x * gain + offset`, one gain and offset a channel, from the running statistics."""

    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Node):
    """Mean over windows; `kernel`, `stride`, `padding` as (vertical, horizontal).

    With `count_padding` the divisor is always the window size, as torch does by default.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    count_padding: bool = True


@dataclass(frozen=True, eq=False)
class Flatten(_Node):
    """All axes into one, in C, H, W order."""


@dataclass(frozen=True, eq=False)
class Activation(_Node):
    """Quantized activation `lam * clip(floor(levels * z / lam + shift), 0, levels) / levels`.

    Attributes
    ----------
    threshold:
        `lam`, float64, (1,) or (C,), > 0; also the real value of one spike.
    levels:
        Quantization levels L (or Q).
    shift:
        1/2 for QCFS and NQ, 0 for CQReLU; the initial potential in units of the threshold.
    """

    threshold: np.ndarray
    levels: int
    shift: float
    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.threshold <= 0).any():
            raise ConversionError(
                "an activation threshold must be positive",
                node=self.name,
                found=float(self.threshold.min()),
                allowed="> 0",
                remedy="train with a positive threshold; a layer with threshold 0 never passes "
                "anything on",
            )
        if self.levels < 1:
            raise ConversionError(
                "an activation needs at least one level", node=self.name, found=self.levels
            )


FloatNode = Input | Conv2d | Linear | BatchNorm | AvgPool2d | Flatten | Activation


def conv_output(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Length of a convolution's or pool's output along one axis (torch's formula)."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def node_shape(node: FloatNode, source: Shape) -> Shape:
    """Output shape of `node` for a source of shape `source`.

    Raises
    ------
    ProgramError
        If the node does not fit its source.
    """
    if isinstance(node, Input):
        return node.shape
    if isinstance(node, Flatten):
        return (prod(source),)
    if isinstance(node, Linear):
        if len(source) != 1 or source[0] != node.weight.shape[1]:
            raise ProgramError(
                "Linear does not fit what comes before it",
                node=node.name,
                found=source,
                allowed=(node.weight.shape[1],),
                remedy="put a Flatten before it, or correct its in_features or the input shape",
            )
        return (node.weight.shape[0],)
    if isinstance(node, Conv2d | AvgPool2d) and len(source) != 3:
        raise ProgramError(
            "a source of (channels, height, width) is needed", node=node.name, found=source
        )
    if isinstance(node, Conv2d):
        if source[0] != node.weight.shape[1] * node.groups:
            raise ProgramError(
                "input channels differ",
                node=node.name,
                found=source[0],
                allowed=node.weight.shape[1] * node.groups,
            )
        kernel: Pair = (node.weight.shape[2], node.weight.shape[3])
        height, width = (
            conv_output(source[i + 1], kernel[i], node.stride[i], node.padding[i], node.dilation[i])
            for i in range(2)
        )
        return _positive_shape(node.name, (node.weight.shape[0], height, width))
    if isinstance(node, AvgPool2d):
        height, width = (
            conv_output(source[i + 1], node.kernel[i], node.stride[i], node.padding[i], 1)
            for i in range(2)
        )
        return _positive_shape(node.name, (source[0], height, width))
    values = node.gain if isinstance(node, BatchNorm) else node.threshold
    if values.shape[0] not in (1, source[0]):
        raise ProgramError(
            "per-channel values do not fit the channels",
            node=node.name,
            found=values.shape[0],
            allowed=source[0],
        )
    return source


def _positive_shape(name: str, shape: Shape) -> Shape:
    if any(s < 1 for s in shape):
        raise ProgramError("the kernel is larger than its padded input", node=name, found=shape)
    return shape


@dataclass(frozen=True, eq=False)
class FloatProgram:
    """Nodes in topological order; the last is the output. Checked on construction."""

    nodes: tuple[FloatNode, ...]

    def __post_init__(self) -> None:
        self.shapes()

    @property
    def input(self) -> Input:
        """The input node."""
        first = self.nodes[0]
        if not isinstance(first, Input):
            raise ProgramError("the first node must be the input", node=first.name)
        return first

    def node(self, name: str) -> FloatNode:
        """The node called `name`; raises KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def shapes(self) -> dict[str, Shape]:
        """Output shape of every node; raises ProgramError if one does not fit."""
        shapes: dict[str, Shape] = {self.input.name: self.input.shape}
        for node in self.nodes[1:]:
            if node.name in shapes:
                raise ProgramError("a node name stands twice", node=node.name)
            if node.source not in shapes:
                raise ProgramError("a node uses a later or unknown one", node=node.name)
            shapes[node.name] = node_shape(node, shapes[node.source])
        return shapes

    def consumers(self, name: str) -> tuple[FloatNode, ...]:
        """Nodes that take `name` as their source."""
        return tuple(n for n in self.nodes if n.source == name)
