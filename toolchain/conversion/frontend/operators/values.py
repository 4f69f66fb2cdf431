"""The values of a trace, and helpers for all families of handlers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from toolchain.canonical import handed_over
from toolchain.conversion.frontend.operators.selection import (
    NO_PADDING,
    Sides,
    is_in_order,
    selecting_conv,
    selecting_dense,
    without_border,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    Concat,
    Flatten,
    FloatNode,
    Input,
    MaxPool2d,
    node_shape,
)
from toolchain.program.int_program import INPUT
from toolchain.program.names import new_name
from toolchain.program.synapse import Pair

Shape = tuple[int, ...]
_POOLED = MaxPool2d | AvgPool2d | Flatten
Handler = Callable[[fx.Node, "Values"], None]


@dataclass(eq=False)
class Traced:
    """A traced tensor: the values of a float node, possibly in another order or shape.

    Attributes
    ----------
    name:
        The float node.
    base:
        Its shape, without the batch axis.
    index:
        Per element of the tensor, 1 + the position of its value among those of the float node, in
        C order; 0 where the tensor holds a zero. None: the values as they are.
    path:
        Path of the operation that gave it its form, for names and errors.
    is_rectified:
        Whether a ReLU made it.
    is_lowest:
        Whether minus infinity stands where `index` is 0: padding that only a max pool takes.
    """

    name: str
    base: Shape
    index: np.ndarray | None = None
    path: str = ""
    is_rectified: bool = False
    is_lowest: bool = False

    @property
    def shape(self) -> Shape:
        """The shape, without the batch axis."""
        return self.base if self.index is None else self.index.shape

    def positions(self) -> np.ndarray:
        """`index`, also where the values are as they are."""
        if self.index is not None:
            return self.index
        return np.arange(1, prod(self.base) + 1).reshape(self.base)


class Values:
    """The traced values: each is a float node's output, or a constant.

    `plain_relu` states whether ReLUs become activations whose threshold is measured later.

    Attributes
    ----------
    final:
        Nodes whose values the network returns, at most in another order, and nothing else.
    nodes:
        The float nodes that were made, in topological order.
    notes:
        What a user should know of the conversion.
    left_out:
        The last functions of the network that are left out, by their node.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Shape,
        final: Collection[fx.Node],
        *,
        plain_relu: bool = False,
    ) -> None:
        self.model = model
        self.final = final
        self.plain_relu = plain_relu
        self.nodes: list[FloatNode] = [Input(INPUT, (), input_shape)]
        self.notes: list[str] = []
        self.left_out: dict[fx.Node, Callable[[Tensor], Tensor]] = {}
        self._tensors: dict[fx.Node, Traced | list[Traced]] = {}
        self._vectors: dict[tuple[str, bytes], Traced] = {}
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

    def names(self) -> set[str]:
        """Names of the float nodes made so far."""
        return {node.name for node in self.nodes}

    def new_name(self, node: fx.Node, suffix: str = "") -> str:
        """A name not used yet: the path, with the number of the call if it is called again."""
        return new_name(self.path(node) + suffix, self._taken)

    def bind(self, node: fx.Node, value: Traced | list[Traced]) -> None:
        """Record the value of `node`: a tensor, or several."""
        self._tensors[node] = value

    def emit(self, node: fx.Node, result: FloatNode, *sources: Traced) -> Traced:
        """Add a float node of these sources, and record that `node` has its value."""
        made = self._add(result, *sources)
        shape = node.meta.get("shape", ())[1:]
        if len(shape) == 2 and len(made.base) == 3:  # a sequence
            made = Traced(made.name, made.base, made.positions().reshape(shape), self.path(node))
        self.bind(node, made)
        return made

    def _add(self, result: FloatNode, *sources: Traced) -> Traced:
        self.nodes.append(result)
        return Traced(result.name, node_shape(result, *(s.shape for s in sources)))

    def value(self, node: fx.Node) -> Traced | list[Traced] | None:
        """What is known of a node; None for a constant."""
        return self._tensors.get(node)

    def tensor(self, node: fx.Node, value: Any, *, lowest: bool = False) -> Traced:
        """`value` as a traced tensor; raises an error that names `node` for anything else.

        With `lowest` it may have minus infinity around its images.
        """
        found = self._tensors.get(value) if isinstance(value, fx.Node) else None
        if isinstance(found, Traced):
            if found.is_lowest and not lowest:
                raise UnsupportedModuleError(
                    "minus infinity around an image, in front of anything but a max pool",
                    node=found.path,
                    found=f"read by {self.path(node)}",
                )
            return found
        raise UnsupportedModuleError(
            "an operation on something other than the traced tensor",
            node=self.path(node),
            found=value,
        )

    def source(self, node: fx.Node, value: Any) -> Traced:
        """`value` as the output of a float node, in its order and shape.

        A view of another becomes a float node of its own: a Flatten, or weights of ones that select
        elements.

        Raises
        ------
        UnsupportedModuleError
            If no layer gives the values in this order and shape.
        """
        found = _as_image(self.tensor(node, value))
        if found.index is not None:
            self._give_form(node, found)
        return found

    def padded(self, node: fx.Node, value: Any, *, lowest: bool = False) -> tuple[Traced, Sides]:
        """`value` without the border around its images, and its rows and columns.

        The border is of zeros or, with `lowest`, may be of minus infinity (`is_lowest`).
        """
        found = _as_image(self.tensor(node, value, lowest=lowest))
        if found.index is None or found.index.ndim != 3:
            return self.source(node, value), NO_PADDING
        inner, sides = without_border(found.index)
        if sides == NO_PADDING:
            return self.source(node, value), NO_PADDING
        inside = Traced(found.name, found.base, inner, found.path, is_lowest=found.is_lowest)
        self._give_form(node, inside)
        return inside, sides

    def flat(self, node: fx.Node, value: Any) -> tuple[Traced, np.ndarray | None]:
        """`value`, (F,), as a flat float node, and `Traced.index` where its order is another."""
        found = self.tensor(node, value)
        if found.index is None or found.index.ndim != 1 or is_in_order(found.index, found.base):
            return self.source(node, value), None
        return self._flattened(found), found.index

    def is_never_negative(self, value: Traced) -> bool:
        """Whether all values are 0 or more, for any input of the network."""
        return self._is_activated(value, _POOLED | Add | Concat)

    def follows_activation(self, value: Traced) -> bool:
        """Whether the values are those of one activation, or pools of them, and so never negative.

        Not sums, which an activation behind them turns into spikes of one population.
        """
        return self._is_activated(value, _POOLED)

    def _is_activated(self, value: Traced, passing: Any) -> bool:
        """Whether all values come from activations, through nodes of the kinds `passing`."""
        nodes = {n.name: n for n in self.nodes}
        waiting = [value.name]
        while waiting:
            node = nodes.get(waiting.pop())
            if isinstance(node, passing):
                waiting += node.sources
            elif node is not None and not isinstance(node, Activation):
                return False
        return True

    def _give_form(self, node: fx.Node, view: Traced) -> None:
        """Let `view` be the output of a float node of its own."""
        if view.index is None:
            raise TypeError(view)
        if is_in_order(view.index, view.base):
            if view.index.shape != view.base:
                if view.index.ndim != 1:
                    raise self._no_form(node, view)
                flat = self._flattened(view)
                view.name, view.base = flat.name, flat.base
        else:
            source, name = Traced(view.name, view.base), new_name(view.path, self._taken)
            if view.index.ndim == 1:
                source = self._flattened(view)
                layer: FloatNode | None = selecting_dense(
                    name, source.name, view.index, source.base
                )
            else:
                layer = selecting_conv(name, view.name, view.index, view.base)
            if layer is None:
                self._taken.discard(name)
                raise self._no_form(node, view)
            made = self._add(layer, source)
            view.name, view.base = made.name, made.base
        view.index = None

    def _flattened(self, view: Traced) -> Traced:
        """All values of the view's float node, (F,)."""
        if len(view.base) == 1:
            return Traced(view.name, view.base)
        before = next(
            (n for n in self.nodes if isinstance(n, Flatten) and n.sources == (view.name,)), None
        )
        if before is not None:
            return Traced(before.name, (prod(view.base),))
        flatten = Flatten(new_name(view.path, self._taken), (view.name,))
        return self._add(flatten, Traced(view.name, view.base))

    def is_activation(self, value: Traced) -> bool:
        """Whether the values are those of an activation itself."""
        return any(n.name == value.name and isinstance(n, Activation) for n in self.nodes)

    def vector(self, view: Traced, path: str) -> Traced:
        """The values of a view of an image of one pixel, (C, 1, 1), as those of a dense layer."""
        index = view.positions().ravel()
        key = (view.name, index.tobytes())
        if key not in self._vectors:
            name = new_name(path, self._taken)
            flat = self._flattened(Traced(view.name, view.base, path=name))
            layer = selecting_dense(name, flat.name, index, flat.base)
            self._vectors[key] = self._add(layer, flat)
        return self._vectors[key]

    def _no_form(self, node: fx.Node, view: Traced) -> UnsupportedModuleError:
        if view.index is not None and view.index.ndim == 3:
            _, sides = without_border(view.index)
            if sides != NO_PADDING:
                return UnsupportedModuleError(
                    "zero padding in front of anything but a convolution or a max pool",
                    node=view.path,
                    found=f"read by {self.path(node)}",
                    remedy="give the padding to the layer that takes it",
                )
        return UnsupportedModuleError(
            "values in another order or shape than a layer gives them",
            node=view.path,
            found=f"{view.base} as {view.shape}, read by {self.path(node)}",
            allowed="flattened values, channels that are selected or reordered, and rows and "
            "columns that are left out, or repeated a whole number of times",
        )

    def resolve(self, value: Any) -> Any:
        """`value`, with traced constants replaced by their values."""
        if isinstance(value, fx.Node):
            if "constant" not in value.meta:
                raise UnsupportedModuleError(
                    "a parameter is computed from data", node=self.path(value), found=value
                )
            return value.meta["constant"]
        if isinstance(value, tuple | list):
            return type(value)(self.resolve(v) for v in value)
        return value


def _as_image(found: Traced) -> Traced:
    """A sequence (C, L) as an image (C, 1, L), one number as (1,)."""
    if found.shape == ():
        return replace(found, index=found.positions().reshape(1))
    if len(found.shape) != 2:
        return found
    image = found.positions()[:, None, :]
    return replace(found, index=image)


def as_array(tensor: Tensor | None, length: int = 0) -> np.ndarray:
    """A tensor as a float64 array; None becomes `length` zeros."""
    if tensor is None:
        return np.zeros(length)
    array = np.empty(tuple(tensor.shape))
    torch.from_numpy(array).copy_(tensor.detach())
    return handed_over(array)


def as_pair(value: Any) -> Pair:
    """A number or a pair as (vertical, horizontal)."""
    if isinstance(value, tuple | list):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def called_module(node: fx.Node) -> Any:
    """The module that a call_module node calls."""
    return node.meta["module"]


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


def run_on(node: fx.Node, values: Values, value: Any, tensor: Tensor) -> Any:
    """The operation's result for `tensor` in place of the traced tensor `value`."""

    def given(argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: tensor if n is value else values.resolve(n))

    args, kwargs = given(node.args), given(node.kwargs)
    if node.op == "call_module":
        return called_module(node)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)
