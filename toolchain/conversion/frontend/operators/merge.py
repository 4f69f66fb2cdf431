"""Sums and concatenations of branches, as operators, functions and methods."""

from __future__ import annotations

from typing import Any

from torch import fx

from toolchain.conversion.frontend.operators.remedies import IN_INPUT, is_on_input
from toolchain.conversion.frontend.operators.values import Values, bind_arguments
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Add, Concat, FloatNode


def add(node: fx.Node, values: Values) -> FloatNode | None:
    """Handle a + b, a += b, torch.add, Tensor.add and Tensor.add_ of two traced tensors.

    Adding the number 0 changes nothing; Python's `sum` of a list starts with it.
    """
    given = dict(zip(("input", "other"), node.args, strict=False)) | dict(node.kwargs)
    alpha = given.pop("alpha", 1)
    if alpha != 1 or set(given) != {"input", "other"}:
        raise UnsupportedModuleError(
            "an addition with factor or output",
            node=values.path(node),
            found=f"alpha={alpha}" if alpha != 1 else sorted(given),
            allowed="alpha=1",
            remedy="put the factor into the weights of the layer before",
        )
    operands = [v for v in given.values() if not _is_zero(v)]
    sources = [_branch(node, values, v) for v in operands]
    if len(sources) == 1:
        values.same(node, sources[0])
        return None
    result = Add(values.new_name(node), tuple(values.names[s] for s in sources))
    return values.made(node, result, *sources)


def concatenate(node: fx.Node, values: Values) -> FloatNode | None:
    """Handle torch.cat, torch.concat and torch.concatenate along the channels or features."""
    kwargs = {"dim" if k == "axis" else k: v for k, v in node.kwargs.items()}
    a = bind_arguments(node, values, ("tensors", "dim"), {"dim": 0}, kwargs)
    sources = [values.source(node, v) for v in a["tensors"]]
    axes = len(values.shapes[sources[0]]) + 1
    dim = int(a["dim"])
    if dim not in (1, 1 - axes):
        raise UnsupportedModuleError(
            "a concatenation along another axis than the channels",
            node=values.path(node),
            found=f"dim={dim} of {axes} axes",
            allowed="dim=1",
        )
    if len(sources) == 1:
        values.same(node, sources[0])
        return None
    result = Concat(values.new_name(node), tuple(values.names[s] for s in sources))
    return values.made(node, result, *sources)


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _branch(node: fx.Node, values: Values, value: Any) -> fx.Node:
    if isinstance(value, fx.Node) and value in values.names:
        return value
    raise UnsupportedModuleError(
        "only branches of the network can be added, not a constant",
        node=values.path(node),
        found=value,
        remedy=IN_INPUT
        if is_on_input(node)
        else "put the constant into the bias of the layer before",
    )
