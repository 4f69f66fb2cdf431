"""Operations that only reshape, or do nothing in evaluation."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import fx

from toolchain.conversion.frontend.operators.values import (
    BATCH_SIZE,
    Values,
    bind_arguments,
    called_module,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Flatten, FloatNode


def _flatten(node: fx.Node, values: Values, value: Any, start: int, end: int) -> FloatNode | None:
    source = values.source(node, value)
    axes = len(values.shapes[source]) + 1
    if start % axes != 1 or end % axes != axes - 1:
        raise UnsupportedModuleError(
            "flatten of some axes only",
            node=values.path(node),
            found=f"start_dim={start}, end_dim={end}",
            allowed="start_dim=1, end_dim=-1",
        )
    if axes == 2:
        values.same(node, source)
        return None
    return values.made(node, Flatten(values.new_name(node), (values.names[source],)), source)


def flatten_module(node: fx.Node, values: Values) -> FloatNode | None:
    """Handle nn.Flatten."""
    m = called_module(node, values)
    return _flatten(node, values, node.args[0], m.start_dim, m.end_dim)


def flatten_function(node: fx.Node, values: Values) -> FloatNode | None:
    """Handle torch.flatten and Tensor.flatten."""
    a = bind_arguments(
        node, values, ("input", "start_dim", "end_dim"), {"start_dim": 0, "end_dim": -1}
    )
    return _flatten(node, values, a["input"], a["start_dim"], a["end_dim"])


def view(node: fx.Node, values: Values) -> FloatNode | None:
    """Handle Tensor.view and Tensor.reshape if they flatten."""
    source = values.source(node, node.args[0])
    raw = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
    sizes = list(values.resolve(list(raw)))
    features = prod(values.shapes[source])
    rows_kept = len(sizes) == 2 and (sizes[0] is BATCH_SIZE or sizes[0] == -1)
    if rows_kept and (sizes[1] == features or (sizes[1] == -1 and sizes[0] is BATCH_SIZE)):
        return _flatten(node, values, source, 1, -1)
    raise UnsupportedModuleError(
        "only flattening reshapes are supported",
        node=values.path(node),
        found=f"{values.shapes[source]} to {sizes}",
        allowed="x.flatten(1), or x.view(x.size(0), -1)",
    )


def size(node: fx.Node, values: Values) -> None:
    """Handle Tensor.size: a constant, with a placeholder for the batch axis."""
    source = values.source(node, node.args[0])
    sizes = (BATCH_SIZE, *values.shapes[source])
    index = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    values.set_constant(node, sizes if index is None else sizes[int(str(index))])


def attribute(node: fx.Node, values: Values) -> None:
    """Handle getattr(tensor, "shape")."""
    source = values.source(node, node.args[0])
    if node.args[1] != "shape":
        raise UnsupportedModuleError(
            "an attribute of a tensor", node=values.path(node), found=node.args[1], allowed="shape"
        )
    values.set_constant(node, (BATCH_SIZE, *values.shapes[source]))


def item(node: fx.Node, values: Values) -> None:
    """Handle indexing of a constant, such as x.shape[0]."""
    if isinstance(node.args[0], fx.Node) and node.args[0] in values.names:
        raise UnsupportedModuleError("indexing of the traced tensor", node=values.path(node))
    values.set_constant(node, values.resolve(node.args[0])[values.resolve(node.args[1])])


def pass_on(node: fx.Node, values: Values) -> None:
    """Handle Dropout and Identity, which do nothing in evaluation mode."""
    values.same(node, values.source(node, node.args[0] if node.args else node.kwargs["input"]))


def dropout_function(node: fx.Node, values: Values) -> None:
    """Handle F.dropout."""
    names = ("input", "p", "training", "inplace")
    a = bind_arguments(node, values, names, {"p": 0.5, "training": True, "inplace": False})
    if a["training"]:
        raise UnsupportedModuleError(
            "F.dropout with training=True is random",
            node=values.path(node),
            remedy="pass training=self.training, or use nn.Dropout",
        )
    values.same(node, values.source(node, a["input"]))


def _pad(node: fx.Node, values: Values, value: Any, padding: Any, mode: str, fill: Any) -> None:
    sizes = tuple(int(p) for p in ((padding,) * 4 if isinstance(padding, int) else padding))
    source, _ = values.unpadded(node, value)
    sizes += (0, 0) * (len(sizes) == 2)
    is_image = len(values.shapes[source]) == 3 and len(sizes) == 4
    if mode != "constant" or fill not in (None, 0, 0.0) or not is_image or min(sizes) < 0:
        raise UnsupportedModuleError(
            "padding other than zeros around images",
            node=values.path(node),
            found=f"{mode} {'' if fill is None else fill}, {sizes}",
            allowed="zeros, at no side fewer than 0",
        )
    left, right, top, bottom = sizes
    values.pad(node, source, ((top, bottom), (left, right)))


def pad_module(node: fx.Node, values: Values) -> None:
    """Handle nn.ZeroPad2d and nn.ConstantPad2d."""
    m = called_module(node, values)
    _pad(node, values, node.args[0], m.padding, "constant", m.value)


def pad_function(node: fx.Node, values: Values) -> None:
    """Handle F.pad."""
    names = ("input", "pad", "mode", "value")
    a = bind_arguments(node, values, names, {"mode": "constant", "value": None})
    _pad(node, values, a["input"], a["pad"], a["mode"], a["value"])
