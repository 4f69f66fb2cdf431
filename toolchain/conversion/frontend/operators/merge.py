"""Sums and concatenations of branches, as operators, functions and methods."""

from __future__ import annotations

from torch import fx

from toolchain.conversion.frontend.operators import affine
from toolchain.conversion.frontend.operators.values import Traced, Values, bind_arguments
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Add, Concat


def add(node: fx.Node, values: Values) -> None:
    """Handle a + b, a += b, torch.add, Tensor.add and Tensor.add_, of tensors and constants.

    Adding the number 0 changes nothing; Python's `sum` of a list starts with it.
    """
    given = affine.operands(node, values)
    operands = [v for v in given if not (isinstance(v, int | float) and v == 0)]
    tensors = [v for v in operands if affine.is_traced(v, values)]
    if len(operands) == 1:
        values.bind(node, values.tensor(node, operands[0]))
    elif len(tensors) == 1:
        affine.apply(node, values)
    else:
        sources = [values.source(node, v) for v in operands]
        _add(node, values, sources)


def subtract(node: fx.Node, values: Values) -> None:
    """Handle a - b and its functions, of tensors and constants."""
    first, second = affine.operands(node, values)
    if not (affine.is_traced(first, values) and affine.is_traced(second, values)):
        affine.apply(node, values)
        return
    negative = affine.scaled(node, values, values.source(node, second), -1.0)
    _add(node, values, [values.source(node, first), negative])


def _add(node: fx.Node, values: Values, sources: list[Traced]) -> None:
    result = Add(values.new_name(node), tuple(s.name for s in sources))
    values.emit(node, result, *sources)


def concatenate(node: fx.Node, values: Values) -> None:
    """Handle torch.cat, torch.concat and torch.concatenate along the channels or features."""
    kwargs = {"dim" if k == "axis" else k: v for k, v in node.kwargs.items()}
    a = bind_arguments(node, values, ("tensors", "dim"), {"dim": 0}, kwargs)
    sources = [values.source(node, v) for v in a["tensors"]]
    axes = len(node.meta["shape"])
    dim = int(a["dim"])
    if dim not in (1, 1 - axes):
        raise UnsupportedModuleError(
            "a concatenation along another axis than the channels",
            node=values.path(node),
            found=f"dim={dim} of {axes} axes",
            allowed="dim=1",
        )
    if len(sources) == 1:
        values.bind(node, sources[0])
        return
    result = Concat(values.new_name(node), tuple(s.name for s in sources))
    values.emit(node, result, *sources)
