"""The float program: the traced network as immutable nodes with float64 arrays.

One node per operation, named by the qualified path of its module, in topological
order. `sources` of a node names the nodes of its inputs; branches meet in `Add` and
`Concat`. Passes (BatchNorm folding, pool folding) return a new program. Shapes exclude the
batch axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import prod

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.errors import ConversionError, ProgramError
from toolchain.program.conv_output import conv_output
from toolchain.program.synapse import Pair, Sliding

Shape = tuple[int, ...]

_ARRAYS = ("weight", "bias", "gain", "offset", "threshold")

UNBOUNDED = 1e300
"""Threshold of a plain ReLU before it is measured, so large that nothing is clipped."""

CONSTANT = "constant"
"""Kind of an activation of 0 or its threshold, the same for any input and with any levels."""


@dataclass(frozen=True, eq=False)
class _Node:
    """Common fields of all nodes: a name, and the names of the source nodes."""

    name: str
    sources: tuple[str, ...]

    @property
    def source(self) -> str:
        """The only source; raises ProgramError if there is not exactly one."""
        if len(self.sources) != 1:
            raise ProgramError("a node with one source is needed", node=self.name)
        return self.sources[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
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
    """The network's input, of shape (C, H, W) or (F,); it has no sources."""

    shape: Shape


@dataclass(frozen=True, eq=False)
class Conv2d(_Node, Sliding):
    """Cross-correlation as in torch; weight (C_out, C_in/groups, K_h, K_w), bias (C_out,).

    `upsample` and `overhang` lay the source out as for a `ConvSynapse`. A transposed convolution is
    one of stride 1 that has its stride here.
    """

    weight: np.ndarray
    bias: np.ndarray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    upsample: Pair = (1, 1)
    overhang: Pair = (0, 0)

    @property
    def kernel(self) -> Pair:  # type: ignore[override]
        """(vertical, horizontal) size."""
        return (self.weight.shape[2], self.weight.shape[3])


@dataclass(frozen=True, eq=False)
class Linear(_Node):
    """Dense layer; weight (F_out, F_in), bias (F_out,)."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class BatchNorm(_Node):
    """Affine map `y = x * gain + offset` per channel, from the running statistics.

    `gain` and `offset` are float64 (C,).
    """

    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True, eq=False)
class AvgPool2d(_Node):
    """Mean over windows; `kernel`, `stride`, `padding` are (vertical, horizontal).

    With `count_padding` the divisor is always the window size, as by default in torch. With
    `ceil_mode` the last windows hang over the border, and what does so counts in no divisor.
    `adaptive` is the size of the output of an adaptive pool whose windows differ; they take the
    place of `kernel` and `stride`.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    count_padding: bool = True
    ceil_mode: bool = False
    adaptive: Pair | None = None

    @property
    def uneven(self) -> str:
        """Why windows have different divisors; empty if all have the same."""
        if self.adaptive:
            return f"its {self.adaptive[0]}x{self.adaptive[1]} windows are uneven"
        if self.ceil_mode:
            return "its last window hangs over the border and averages over fewer values"
        padded = any(self.padding) and not self.count_padding
        return "it leaves the padding out of the mean" if padded else ""


@dataclass(frozen=True, eq=False)
class MaxPool2d(_Node, Sliding):
    """Maximum of each window; padding counts as minus infinity, as in torch.

    `overhang` is the (vertical, horizontal) padding below and to the right beyond `padding`, below
    0 where there is less.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    overhang: Pair = (0, 0)


@dataclass(frozen=True, eq=False)
class Flatten(_Node):
    """All axes joined into one, in C, H, W order."""


@dataclass(frozen=True, eq=False)
class Add(_Node):
    """Sum of two or more sources of one shape; a source may occur several times."""


@dataclass(frozen=True, eq=False)
class Concat(_Node):
    """Concatenation of two or more sources along the axis of channels (or features)."""


@dataclass(frozen=True, eq=False)
class Activation(_Node):
    """Quantized activation `lam * clip(floor(levels * z / lam + shift), 0, levels) / levels`.

    Attributes
    ----------
    threshold:
        `lam`, float64, (1,) or (C,), > 0.
    levels:
        Quantization levels L (or Q).
    shift:
        1/2 for QCFS and NQ, 0 for CQReLU; the initial potential in units of the threshold. One for
        all channels, or float64 (C,).
    bound:
        Where the network's own activation clips, if it does not quantize: `UNBOUNDED` for a ReLU,
        6 for ReLU6. Levels, and a threshold up to the bound, are chosen in conversion. None of a
        quantized activation.
    max_spike:
        Largest graded spike, whose real value is the threshold; 1 of IF and CIF neurons.
    """

    threshold: np.ndarray
    levels: int
    shift: float | np.ndarray
    kind: str
    bound: float | None = None
    max_spike: int = 1

    @property
    def is_constant(self) -> bool:
        """Whether its values are the same for any input, and with any number of levels."""
        return self.kind == CONSTANT

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.shift, np.ndarray):
            object.__setattr__(self, "shift", frozen_array(self.shift, np.float64))
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


FloatNode = (
    Input
    | Conv2d
    | Linear
    | BatchNorm
    | AvgPool2d
    | MaxPool2d
    | Flatten
    | Add
    | Concat
    | Activation
)


@singledispatch
def node_shape(node: object, *sources: Shape) -> Shape:
    """Output shape of `node`, from the shapes of its sources in the order of `node.sources`.

    Raises
    ------
    ProgramError
        If the node does not fit its sources, or is of an unknown kind.
    """
    raise ProgramError("no shape for this node", found=type(node).__name__)


@node_shape.register
def _(node: Input, *sources: Shape) -> Shape:
    return node.shape


@node_shape.register
def _(node: Flatten, *sources: Shape) -> Shape:
    (source,) = _exactly_one(node, sources)
    return (prod(source),)


@node_shape.register
def _(node: Linear, *sources: Shape) -> Shape:
    (source,) = _exactly_one(node, sources)
    if len(source) != 1 or source[0] != node.weight.shape[1]:
        raise ProgramError(
            "Linear does not fit what comes before it",
            node=node.name,
            found=source,
            allowed=(node.weight.shape[1],),
            remedy="put a Flatten before it, or correct its in_features or the input shape",
        )
    return (node.weight.shape[0],)


@node_shape.register
def _(node: Conv2d, *sources: Shape) -> Shape:
    source = _image(node, sources)
    if source[0] != node.weight.shape[1] * node.groups:
        raise ProgramError(
            "input channels differ",
            node=node.name,
            found=source[0],
            allowed=node.weight.shape[1] * node.groups,
        )
    return _placed(node, source, node.weight.shape[0])


@node_shape.register
def _(node: AvgPool2d, *sources: Shape) -> Shape:
    source = _image(node, sources)
    if node.adaptive:
        return (source[0], *node.adaptive)
    axes = zip(source[1:], node.kernel, node.stride, node.padding, strict=True)
    height, width = (conv_output(*axis, 1, ceil_mode=node.ceil_mode) for axis in axes)
    return _plane(node, (source[0], height, width))


@node_shape.register
def _(node: MaxPool2d, *sources: Shape) -> Shape:
    source = _image(node, sources)
    result = _placed(node, source, source[0])
    if not all((node.met(source, axis) >= 0).any(axis=1).all() for axis in range(2)):
        raise ProgramError(
            "a window of the max pool lies wholly in the padding", node=node.name, found=source
        )
    return result


@node_shape.register
def _(node: Add, *sources: Shape) -> Shape:
    _at_least_two(node, sources)
    if len(set(sources)) > 1:
        raise ProgramError(
            "only tensors of one shape can be added",
            node=node.name,
            found=_named_shapes(node, sources),
            allowed="equal shapes, nothing broadcast",
            remedy="give the branches the same channels and strides, as with a 1x1 convolution "
            "on the shortcut",
        )
    return sources[0]


@node_shape.register
def _(node: Concat, *sources: Shape) -> Shape:
    _at_least_two(node, sources)
    if len({(len(s), s[1:]) for s in sources}) > 1:
        raise ProgramError(
            "tensors are concatenated along the channels; the other sizes must be equal",
            node=node.name,
            found=_named_shapes(node, sources),
            remedy="give the branches the same strides and paddings, or flatten all of them",
        )
    return (sum(s[0] for s in sources), *sources[0][1:])


@node_shape.register
def _(node: BatchNorm, *sources: Shape) -> Shape:
    return _per_channel(node, node.gain, sources)


@node_shape.register
def _(node: Activation, *sources: Shape) -> Shape:
    return _per_channel(node, node.threshold, sources)


def _exactly_one(node: _Node, sources: tuple[Shape, ...]) -> tuple[Shape]:
    if len(sources) != 1:
        raise ProgramError("a node takes one source", node=node.name, found=node.sources)
    return (sources[0],)


def _at_least_two(node: _Node, sources: tuple[Shape, ...]) -> None:
    if len(sources) < 2:
        raise ProgramError("a node takes two or more sources", node=node.name, found=node.sources)


def _named_shapes(node: _Node, sources: tuple[Shape, ...]) -> str:
    return ", ".join(f"{n} {s}" for n, s in zip(node.sources, sources, strict=True))


def _image(node: _Node, sources: tuple[Shape, ...]) -> Shape:
    (source,) = _exactly_one(node, sources)
    if len(source) != 3:
        raise ProgramError(
            "a source of (channels, height, width) is needed", node=node.name, found=source
        )
    return source


def _placed(node: Conv2d | MaxPool2d, source: Shape, channels: int) -> Shape:
    return _plane(node, (channels, *node.placed(source)))


def _plane(node: _Node, shape: Shape) -> Shape:
    if min(shape) < 1:
        raise ProgramError(
            "the kernel is larger than its padded input", node=node.name, found=shape
        )
    return shape


def _per_channel(
    node: BatchNorm | Activation, values: np.ndarray, sources: tuple[Shape, ...]
) -> Shape:
    (source,) = _exactly_one(node, sources)
    if values.shape[0] not in (1, source[0]):
        raise ProgramError(
            "per-channel values do not fit the channels",
            node=node.name,
            found=values.shape[0],
            allowed=source[0],
        )
    return source


@dataclass(frozen=True, eq=False)
class FloatProgram:
    """Nodes in topological order; checked on construction.

    `outputs` are the names of the nodes whose values the network returns, in its order; by default
    the last node's.
    """

    nodes: tuple[FloatNode, ...]
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(self.outputs) or (self.nodes[-1].name,))
        known = self.shapes()
        missing = [name for name in self.outputs if name not in known]
        if missing or len(set(self.outputs)) < len(self.outputs):
            raise ProgramError(
                "every output must be a node, and each another one",
                found=", ".join(self.outputs),
                allowed=", ".join(known),
            )

    @property
    def input(self) -> Input:
        """The first node; ProgramError if it is not an `Input`."""
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
        """Output shape of every node by name; raises ProgramError if a node does not fit."""
        shapes: dict[str, Shape] = {self.input.name: self.input.shape}
        for node in self.nodes[1:]:
            if node.name in shapes:
                raise ProgramError("a node name stands twice", node=node.name)
            unknown = [s for s in node.sources if s not in shapes]
            if unknown:
                raise ProgramError(
                    "a node uses a later or unknown one", node=node.name, found=unknown
                )
            shapes[node.name] = node_shape(node, *(shapes[s] for s in node.sources))
        return shapes

    def consumers(self, name: str) -> tuple[FloatNode, ...]:
        """Nodes that have `name` among their sources."""
        return tuple(n for n in self.nodes if name in n.sources)
