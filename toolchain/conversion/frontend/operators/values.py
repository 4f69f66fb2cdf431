"""The values of a trace, and helpers for all families of handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from toolchain.canonical import handed_over
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import FloatNode, node_shape
from toolchain.program.int_program import INPUT
from toolchain.program.names import new_name
from toolchain.program.synapse import Pair

Shape = tuple[int, ...]
Made = FloatNode | tuple[FloatNode, ...] | None
"""Result of a handler: one node, several in order, or none."""
Handler = Callable[[fx.Node, "Values"], Made]


Sides = tuple[Pair, Pair]
"""Zeros above and below, and left and right."""
NO_PADDING: Sides = ((0, 0), (0, 0))


class _BatchSize:
    """Placeholder for the size of the batch axis, which a program does not have."""


BATCH_SIZE = _BatchSize()


class Values:
    """The traced values: each is a float node's output with its shape, or a constant.

    `plain_relu` states whether ReLUs become activations whose threshold is measured later.
    """

    def __init__(self, model: nn.Module, input_shape: Shape, *, plain_relu: bool = False) -> None:
        self.model = model
        self.plain_relu = plain_relu
        self.input_shape = input_shape
        self.names: dict[fx.Node, str] = {}
        self.shapes: dict[fx.Node, Shape] = {}
        self.rectified: set[fx.Node] = set()
        self.paddings: dict[fx.Node, Sides] = {}
        self._constants: dict[fx.Node, Any] = {}
        self._taken = {INPUT}

    def path(self, node: fx.Node) -> str:
        """Qualified path of the module that a node calls, or that calls a function.

        torch.fx numbers functions through the whole network; inside a module the number is left
        out, so that a block's addition is `layer1.0.add`.
        """
        if node.op in ("call_module", "get_attr"):
            return str(node.target)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        where = str(stack[-1][0]) if stack and isinstance(stack[-1], tuple) else ""
        return f"{where}.{re.sub('_[0-9]+$', '', node.name)}" if where else node.name

    def new_name(self, node: fx.Node, suffix: str = "") -> str:
        """A name not used yet: the path, with the number of the call if it is called again."""
        return new_name(self.path(node) + suffix, self._taken)

    def bind(self, node: fx.Node, name: str, shape: Shape) -> None:
        """Record that `node` is the output of float node `name`."""
        self.names[node] = name
        self.shapes[node] = shape

    def made(self, node: fx.Node, result: FloatNode, *sources: fx.Node) -> FloatNode:
        """Record and return the float node made for `node` from these sources."""
        self.bind(node, result.name, node_shape(result, *(self.shapes[s] for s in sources)))
        return result

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """Record that `node` passes on `source` unchanged."""
        self.bind(node, self.names[source], self.shapes[source])

    def constant(self, node: fx.Node) -> None:
        """Record a get_attr node as the tensor it names."""
        value: Any = self.model
        for part in str(node.target).split("."):
            value = getattr(value, part)
        self._constants[node] = value

    def set_constant(self, node: fx.Node, value: Any) -> None:
        """Record a computed constant."""
        self._constants[node] = value

    def pad(self, node: fx.Node, source: fx.Node, sides: Sides) -> None:
        """Record that `node` is `source` with zeros around it, for the convolution behind."""
        (top, bottom), (left, right) = sides
        (above, below), (before, behind) = self.paddings.get(source, NO_PADDING)
        self.paddings[node] = ((above + top, below + bottom), (before + left, behind + right))
        channels, height, width = self.shapes[source]
        self.bind(node, self.names[source], (channels, height + top + bottom, width + left + right))

    def unpadded(self, node: fx.Node, value: Any) -> tuple[fx.Node, Sides]:
        """`value` as a traced tensor, and the zeros around it that the caller takes over."""
        if isinstance(value, fx.Node) and value in self.paddings:
            return value, self.paddings[value]
        return self.source(node, value), NO_PADDING

    def source(self, node: fx.Node, value: Any) -> fx.Node:
        """`value` as a traced tensor; raises an error that names `node` for anything else."""
        if isinstance(value, fx.Node) and value in self.paddings:
            raise UnsupportedModuleError(
                "zero padding in front of anything but a convolution",
                node=self.path(value),
                found=f"read by {self.path(node)}",
                remedy="give the padding to the layer that takes it",
            )
        if isinstance(value, fx.Node) and value in self.names:
            return value
        raise UnsupportedModuleError(
            "an operation on something other than the traced tensor",
            node=self.path(node),
            found=value,
        )

    def resolve(self, value: Any) -> Any:
        """`value`, with traced constants replaced by their values."""
        if isinstance(value, fx.Node):
            if value not in self._constants:
                raise UnsupportedModuleError(
                    "a parameter is computed from data", node=self.path(value), found=value
                )
            return self._constants[value]
        if isinstance(value, tuple | list):
            return type(value)(self.resolve(v) for v in value)
        return value


def as_array(tensor: Tensor | None, length: int = 0) -> np.ndarray:
    """A tensor as a float64 array; None becomes `length` zeros."""
    if tensor is None:
        return np.zeros(length)
    values = tensor.detach().cpu()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.double()
    return handed_over(np.array(values.numpy(), np.float64, order="C"))


def as_pair(value: Any) -> Pair:
    """A number or a pair as (vertical, horizontal)."""
    if isinstance(value, tuple | list):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def called_module(node: fx.Node, values: Values) -> Any:
    """The module that a call_module node calls."""
    return values.model.get_submodule(str(node.target))


def bind_arguments(
    node: fx.Node,
    values: Values,
    names: tuple[str, ...],
    defaults: dict[str, Any],
    kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Positional and keyword arguments of a functional call by name, constants resolved.

    `kwargs` replaces the call's own if an argument has two names. The first argument is
    the traced tensor, or a list of traced tensors, and stays unchanged.
    """
    given = dict(zip(names, node.args, strict=False))
    given |= dict(node.kwargs if kwargs is None else kwargs)
    unknown = sorted(set(given) - set(names))
    if unknown or len(node.args) > len(names):
        raise UnsupportedModuleError(
            "unknown arguments", node=values.path(node), found=unknown, allowed=names
        )
    missing = [n for n in names if n not in given and n not in defaults]
    if missing:
        raise UnsupportedModuleError("arguments are missing", node=values.path(node), found=missing)
    arguments = {n: given.get(n, defaults.get(n)) for n in names}
    first = names[0]
    return {n: v if n == first else values.resolve(v) for n, v in arguments.items()}
