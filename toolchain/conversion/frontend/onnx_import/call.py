"""One ONNX operation with what is known of its inputs, and the table of operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.onnx_import.graph import OnnxNode
from toolchain.errors import ConversionError, UnsupportedModuleError

MOST_VALUES = 1 << 28
"""Most values of one tensor of a network: 1 GiB in float32."""


@dataclass(frozen=True, eq=False)
class Call:
    """An operation to be made.

    Attributes
    ----------
    inputs:
        The constants, and for values computed from the network's input their values for a sample
        of zeros, which tell shapes; None for optional inputs left out.
    data:
        Per input, whether it is computed from the network's input.
    producer:
        The operation that computes the first input, if that is data.
    at_input:
        Whether the first input is the network's, at most renamed.
    at_output:
        Whether nothing reads the result but the network's output, or a DequantizeLinear before it.
    notes:
        Sentences for the user, which operators may append to.
    """

    node: OnnxNode
    inputs: tuple[Tensor | None, ...]
    data: tuple[bool, ...]
    producer: Call | None
    at_input: bool
    at_output: bool
    notes: list[str] = field(default_factory=list)

    @property
    def x(self) -> Tensor:
        """The first input."""
        first = self.inputs[0] if self.inputs else None
        if first is None:
            raise ConversionError("the first input is missing", node=self.node.name)
        return first

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return self.node.attributes.get(name, default)

    def optional(self, index: int) -> Tensor | None:
        """An optional input that must be constant.

        Raises
        ------
        UnsupportedModuleError
            If it is computed from data.
        """
        if index >= len(self.inputs):
            return None
        if self.data[index]:
            raise UnsupportedModuleError(
                f"{self.node.op} takes weights or sizes that are computed from data",
                node=self.node.name,
                found=self.node.inputs[index],
            )
        return self.inputs[index]

    def constant(self, index: int) -> Tensor:
        """An input that must be there and constant."""
        value = self.optional(index)
        if value is None:
            raise ConversionError(f"input {index} is missing", node=self.node.name)
        return value

    def setting(self, name: str, index: int, default: Any = None) -> Any:
        """What is attribute `name` in older versions of the operator and input `index` in newer."""
        value = self.optional(index)
        return self.attribute(name, default) if value is None else value.tolist()

    def axes(self, name: str = "axes", index: int = 1) -> list[int] | None:
        """Axes, counted from the first, given by an attribute or an input; None without them."""
        axes = self.setting(name, index)
        return None if axes is None else [int(a) % max(self.x.ndim, 1) for a in axes]

    def refused(self, what: str, found: object = None, **told: Any) -> UnsupportedModuleError:
        """The error for a form of this operator that is not supported."""
        return UnsupportedModuleError(
            f"{self.node.op}: {what}", node=self.node.name, found=found, **told
        )

    def check_size(self, sizes: Sequence[int]) -> None:
        """Raise ConversionError if a tensor of these sizes has more than `MOST_VALUES` values."""
        if prod(sizes) > MOST_VALUES:
            raise ConversionError(
                "a tensor is larger than a network needs",
                node=self.node.name,
                found=f"{prod(sizes):,} values",
                allowed=f"{MOST_VALUES:,}",
            )


Function = Callable[..., Any]
"""A function of all inputs of a node, constants included."""
Made = nn.Module | Function | None
"""A module of the first input, a function, or None: the first input is passed on."""
Maker = Callable[[Call], Made]
MAKERS: dict[str, Maker] = {}
"""Makers by operator. A maker states ONNX's meaning of an operator in calls of torch."""


def implements(*ops: str) -> Callable[[Maker], Maker]:
    """Register the maker of these operators."""

    def register(maker: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(ops, maker))
        return maker

    return register


def reshaped(call: Call, sizes: Sequence[int]) -> Function:
    """A reshape to `sizes`, of which data keep the first axis open, since batches differ."""
    wanted = [int(size) for size in sizes]
    if call.data[0] and wanted and 0 not in wanted:
        wanted[0] = -1

    def reshape(x: Any, *_: Any) -> Any:
        return x.reshape(wanted)

    return reshape


class Surrounded(nn.Module):
    """A layer with padding before it and a crop behind it that the layer itself cannot do.

    Parameters
    ----------
    pads:
        As torch's F.pad takes them.
    sizes:
        Sizes of the last axes to which the result is cropped at its end.
    """

    def __init__(
        self,
        layer: nn.Module,
        pads: Sequence[int] = (),
        fill: float = 0.0,
        sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.layer = layer
        self._pads, self._fill = tuple(pads), fill
        self._crop = (..., *(slice(0, size) for size in sizes))

    def forward(self, x: Any) -> Any:
        """Pad, run the layer, crop."""
        if self._pads:
            x = torch.nn.functional.pad(x, self._pads, value=self._fill)
        x = self.layer(x)
        return x[self._crop] if len(self._crop) > 1 else x
