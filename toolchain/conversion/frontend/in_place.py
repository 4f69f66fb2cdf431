"""In-place operations in a traced graph: later readers get the changed tensor.

torch.fx records values, not memory: after `z = relu_(y)` the graph still gives the old `y` to
later readers of `y`, while torch gives them `z`. Here those readers take the operation's
result instead, so that the graph computes what the network computes.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from toolchain.errors import UnsupportedModuleError

_OPERATORS = {operator.iadd, operator.isub, operator.imul, operator.itruediv}
_PASSING: tuple[type[nn.Module], ...] = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
"""Modules that return their input tensor itself in evaluation mode."""
_VIEWS = {"flatten", "view", "reshape"}
_SIZES = {"size", "dim", "numel", getattr, len}
"""Calls on a tensor that return numbers, which no operation writes into."""


def resolve_in_place(graph: fx.Graph, model: nn.Module) -> None:
    """Let every later reader of a changed tensor take the result of the in-place operation.

    Raises
    ------
    UnsupportedModuleError
        If a changed tensor is read later in another shape, as a view.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    numbers: set[fx.Node] = set()
    memory: dict[fx.Node, fx.Node] = {}
    tensor: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.target in _SIZES or (inputs and all(n in numbers for n in inputs)):
            numbers.add(node)
            continue
        source = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(source, fx.Node) or source not in memory:
            source = None
        changes = source is not None and _is_in_place(node, model)
        passes = changes or (source is not None and _passes(node, model))
        views = source is not None and _is_view(node, model)
        memory[node] = memory[source] if source is not None and (passes or views) else node
        tensor[node] = tensor[source] if source is not None and passes else node
        if not changes:
            continue
        for other in [n for n in memory if n is not node and memory[n] is memory[node]]:
            for user in [u for u in other.users if order[u] > order[node]]:
                if tensor[other] is not tensor[node]:
                    raise UnsupportedModuleError(
                        "an in-place operation changes a tensor that is used again in another "
                        "shape",
                        node=str(node.target) if node.op == "call_module" else node.name,
                        found=f"{other.name}, read by {user.name} behind it",
                        remedy="use the form that is not in place (inplace=False)",
                    )
                user.replace_input_with(other, node)


def _is_in_place(node: fx.Node, model: nn.Module) -> bool:
    """Whether `node` writes its result into its first argument."""
    if node.op == "call_module":
        return getattr(model.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    name = str(getattr(node.target, "__name__", ""))
    return node.target in _OPERATORS or name.endswith("_") or _argument(node, "inplace") is True


def _argument(node: fx.Node, name: str) -> Any:
    """An argument of a function call by name; None if it is absent."""
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return node.kwargs.get(name)
    return bound.arguments.get(name)


def _passes(node: fx.Node, model: nn.Module) -> bool:
    """Whether `node` returns its first argument itself."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _PASSING)
    return node.target in (F.dropout, "contiguous")


def _is_view(node: fx.Node, model: nn.Module) -> bool:
    """Whether `node` returns the memory of its first argument in another shape."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), nn.Flatten)
    return node.target is torch.flatten or (node.op == "call_method" and node.target in _VIEWS)
