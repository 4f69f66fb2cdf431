"""Scaling and shifting by constants: x * 2, x / 255, (x - mean) / std, 0.5 * branch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from toolchain.conversion.frontend.operators.selection import is_in_order, is_permuted
from toolchain.conversion.frontend.operators.values import Traced, Values
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import BatchNorm

_RUN: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
}
_OPERATIONS = {
    name: kind
    for kind, names in {
        "add": "add iadd add_",
        "sub": "sub isub sub_ subtract subtract_",
        "mul": "mul imul mul_ multiply multiply_",
        "div": "truediv itruediv div div_ divide divide_ true_divide",
    }.items()
    for name in names.split()
}


def is_traced(value: Any, values: Values) -> bool:
    """Whether `value` is a tensor of the network, not a constant."""
    return isinstance(value, fx.Node) and values.value(value) is not None


def operands(node: fx.Node, values: Values) -> list[Any]:
    """The two operands of an arithmetic operation; raises for further arguments."""
    given = dict(zip(("input", "other"), node.args, strict=False)) | dict(node.kwargs)
    alpha, rounding = given.pop("alpha", 1), given.pop("rounding_mode", None)
    if alpha != 1 or rounding is not None or set(given) != {"input", "other"}:
        raise UnsupportedModuleError(
            "an operation with factor, rounding or output",
            node=values.path(node),
            found=f"alpha={alpha}" if alpha != 1 else sorted(given),
            allowed="two operands",
            remedy="put the factor into the weights of the layer before",
        )
    return [given["input"], given["other"]]


def scale(node: fx.Node, values: Values) -> None:
    """Handle a product or quotient of a tensor and a constant.

    Raises
    ------
    UnsupportedModuleError
        For a product of two tensors, and for a constant divided by a tensor.
    """
    first, second = operands(node, values)
    if is_traced(first, values) and is_traced(second, values):
        raise UnsupportedModuleError(
            "a product of two branches has no counterpart",
            node=values.path(node),
            remedy="gates and attention (squeeze-excite) have none; train a network without them",
        )
    if is_traced(second, values) and _kind(node) == "div":
        raise UnsupportedModuleError(
            "a constant divided by a tensor has no counterpart", node=values.path(node)
        )
    apply(node, values)


def negate(node: fx.Node, values: Values) -> None:
    """Handle -x and torch.neg."""
    source = values.source(node, node.args[0])
    values.bind(node, scaled(node, values, source, -1.0))


def scaled(node: fx.Node, values: Values, source: Traced, gain: float) -> Traced:
    """`source` times a number."""
    channels = source.shape[0]
    result = BatchNorm(
        values.new_name(node), (source.name,), np.full(channels, gain), np.zeros(channels)
    )
    return values.emit(node, result, source)


def _kind(node: fx.Node) -> str:
    return _OPERATIONS[str(getattr(node.target, "__name__", node.target))]


def apply(node: fx.Node, values: Values) -> None:
    """The operation as gain and offset per channel, from what it makes of zeros and ones."""
    first, second = operands(node, values)
    tensor = first if is_traced(first, values) else second
    view = values.tensor(node, tensor)
    shape, kind = view.shape, _kind(node)

    def on(fill: float) -> Tensor:
        filled = torch.full((1, *shape), fill, dtype=torch.float64)
        given = (filled if v is tensor else values.resolve(v) for v in (first, second))
        return _RUN[kind](*(torch.as_tensor(v).detach().to("cpu", torch.float64) for v in given))

    # A product has no offset; a sum keeps the tensor as it is, or its negative.
    sign = torch.full((1, *shape), -1.0 if kind == "sub" and tensor is second else 1.0)
    gain, offset = (on(1.0), 0.0 * sign) if kind in ("mul", "div") else (sign, on(0.0))
    if {gain.shape, offset.shape} != {(1, *shape)}:
        raise UnsupportedModuleError(
            "a constant that is larger than the tensor",
            node=values.path(node),
            found=f"{shape} becomes {tuple(max(gain.shape, offset.shape)[1:])}",
        )
    gain, offset = gain.double().reshape(-1), offset.double().reshape(-1)
    moved = view.index
    if moved is None or is_in_order(moved, view.base) or not is_permuted(moved, view.base):
        source, moved = values.source(node, tensor), None
    else:  # applied to the values in their own order; the result has that of the view
        source, order = Traced(view.name, view.base), torch.from_numpy(moved.reshape(-1).argsort())
        gain, offset = gain[order], offset[order]
    gain, offset = (v.reshape(source.shape[0], -1) for v in (gain, offset))
    if (gain != gain[:, :1]).any() or (offset != offset[:, :1]).any():
        raise UnsupportedModuleError(
            "a constant that differs between the pixels of a channel",
            node=values.path(node),
            allowed="a number, or one value per channel",
        )
    result_node = BatchNorm(
        values.new_name(node), (source.name,), gain[:, 0].numpy(), offset[:, 0].numpy()
    )
    made = values.emit(node, result_node, source)
    if moved is not None:
        values.bind(node, replace(view, name=made.name))
