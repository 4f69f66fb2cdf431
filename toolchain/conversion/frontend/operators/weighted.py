"""Convolutions, dense layers and BatchNorm, as modules and as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, fx, nn
from torch.nn import functional as F

from toolchain.conversion.frontend.operators.selection import NO_PADDING, Sides
from toolchain.conversion.frontend.operators.values import (
    Values,
    as_array,
    as_pair,
    bind_arguments,
    called_module,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import BatchNorm, Conv2d, Linear
from toolchain.program.synapse import Pair


def convolution(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None, **how: Any
) -> None:
    """Add a convolution of `value` with the settings of nn.Conv2d."""
    stride, dilation = as_pair(how["stride"]), as_pair(how["dilation"])
    source, outside = values.padded(node, value)
    own = _sides(how["padding"], weight, dilation)
    sides = [(b + o, e + p) for (b, e), (o, p) in zip(outside, own, strict=True)]
    weight, padding = _with_even_padding(node, values, weight, sides, dilation)
    result = Conv2d(
        values.new_name(node),
        (source.name,),
        as_array(weight),
        as_array(bias, int(weight.shape[0])),
        stride,
        padding,
        dilation,
        int(how["groups"]),
    )
    values.emit(node, result, source)


def transposed(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None, **how: Any
) -> None:
    """Add a transposed convolution of `value` with the settings of nn.ConvTranspose2d.

    It is a convolution of the source spread by its stride, with the kernel turned by 180 degrees
    and its channels exchanged within each group. Where that needs less padding than none, zeros in
    the kernel make up for it.
    """
    source, outside = values.padded(node, value)
    stride, dilation, own = (as_pair(how[name]) for name in ("stride", "dilation", "padding"))
    groups = int(how["groups"])
    by_group = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    turned = by_group.reshape(-1, weight.shape[0] // groups, *weight.shape[2:]).flip(2, 3)
    begin, end, wider = [], [], []
    for axis in (0, 1):
        reach = dilation[axis] * (int(weight.shape[2 + axis]) - 1)
        before, behind = (reach - own[axis] + stride[axis] * n for n in outside[axis])
        size = source.shape[1 + axis] + sum(outside[axis])
        made = stride[axis] * (size - 1) + 1 + reach - 2 * own[axis]
        behind += _output_size(node, axis) - made
        wider.append(max(0, *(-(n // dilation[axis]) for n in (before, behind))))
        begin.append(before + wider[axis] * dilation[axis])
        end.append(behind + wider[axis] * dilation[axis])
    kernel = F.pad(turned, (wider[1], wider[1], wider[0], wider[0]))
    result = Conv2d(
        values.new_name(node),
        (source.name,),
        as_array(kernel),
        as_array(bias, len(kernel)),
        (1, 1),
        (begin[0], begin[1]),
        dilation,
        groups,
        stride,
        (end[0] - begin[0], end[1] - begin[1]),
    )
    values.emit(node, result, source)


def _output_size(node: fx.Node, axis: int) -> int:
    """Rows or columns of the output: by `output_padding`, or by `output_size` of the call."""
    shape = node.meta["shape"][2:]
    return int(shape[axis - 2]) if len(shape) + axis >= 2 else 1


def transposed_module(node: fx.Node, values: Values) -> None:
    """Handle nn.ConvTranspose2d."""
    m = called_module(node)
    how = {name: getattr(m, name) for name in _TRANSPOSED}
    transposed(node, values, node.args[0], m.weight, m.bias, **how)


def transposed_function(node: fx.Node, values: Values) -> None:
    """Handle F.conv_transpose2d."""
    a = transposed_arguments(node, values)
    transposed(node, values, a.pop("input"), a.pop("weight"), a.pop("bias"), **a)


_TRANSPOSED = ("stride", "padding", "groups", "dilation")


def transposed_arguments(node: fx.Node, values: Values) -> dict[str, Any]:
    """The arguments of F.conv_transpose1d or 2d by name, `output_padding` aside."""
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    defaults = {"bias": None, "stride": 1, "padding": 0, "groups": 1, "dilation": 1}
    a = bind_arguments(node, values, names, {**defaults, "output_padding": 0})
    del a["output_padding"]  # the shape of the output tells it
    return a


def _sides(padding: Any, weight: Tensor, dilation: Pair) -> Sides:
    """Zeros around the input by the convolution's own padding; torch puts an odd one behind."""
    if padding == "valid":
        return NO_PADDING
    if padding != "same":
        above, left = as_pair(padding)
        return ((above, above), (left, left))
    totals = [d * (int(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    rows, columns = ((t // 2, t - t // 2) for t in totals)
    return (rows, columns)


def _with_even_padding(
    node: fx.Node, values: Values, weight: Tensor, sides: Sequence[Pair], dilation: Pair
) -> tuple[Tensor, Pair]:
    """A kernel and an even padding that compute the convolution with these zeros around its input.

    Where one side has fewer zeros than the other, zeros in the kernel move it off the surplus.
    """
    padding = (max(sides[0]), max(sides[1]))
    missing = [p - s for p, both in zip(padding, sides, strict=True) for s in both]
    steps = [dilation[0], dilation[0], dilation[1], dilation[1]]
    if any(m % d for m, d in zip(missing, steps, strict=True)):
        raise UnsupportedModuleError(
            "padding that differs between two sides by no multiple of the dilation",
            node=values.path(node),
            found=f"{sides[0]} rows and {sides[1]} columns, dilation {dilation}",
        )
    top, bottom, left, right = (m // d for m, d in zip(missing, steps, strict=True))
    if not any(missing):
        return weight, padding
    return F.pad(weight, (left, right, top, bottom)), padding


def check_padding_mode(node: fx.Node, values: Values, module: Any) -> None:
    """Raise an error for a convolution that pads with other values than zeros."""
    if module.padding_mode != "zeros" and module.padding not in (0, (0,), (0, 0), "valid"):
        raise UnsupportedModuleError(
            "padding mode is not supported",
            node=values.path(node),
            found=module.padding_mode,
            allowed="zeros",
        )


def conv_module(node: fx.Node, values: Values, module: nn.Conv2d | None = None) -> None:
    """Handle nn.Conv2d: `module`, or the module that the node calls."""
    m = module or called_module(node)
    check_padding_mode(node, values, m)
    convolution(
        node,
        values,
        node.args[0],
        m.weight,
        m.bias,
        stride=m.stride,
        padding=m.padding,
        dilation=m.dilation,
        groups=m.groups,
    )


def conv_function(node: fx.Node, values: Values) -> None:
    """Handle F.conv2d."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    a = bind_arguments(node, values, names, defaults)
    value, weight, bias = a.pop("input"), a.pop("weight"), a.pop("bias")
    convolution(node, values, value, weight, bias, **a)


def _linear(node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None) -> None:
    source, index = values.flat(node, value)
    rows = as_array(weight)
    if index is not None and index.size == rows.shape[1]:
        taken = np.flatnonzero(index)
        own, rows = rows, np.zeros((len(rows), *source.shape))
        np.add.at(rows.T, index[taken] - 1, own.T[taken])
    result = Linear(
        values.new_name(node), (source.name,), rows, as_array(bias, int(weight.shape[0]))
    )
    values.emit(node, result, source)


def linear_module(node: fx.Node, values: Values, module: nn.Linear | None = None) -> None:
    """Handle nn.Linear: `module`, or the module that the node calls."""
    m = module or called_module(node)
    _linear(node, values, node.args[0], m.weight, m.bias)


def linear_function(node: fx.Node, values: Values) -> None:
    """Handle F.linear."""
    a = bind_arguments(node, values, ("input", "weight", "bias"), {"bias": None})
    _linear(node, values, a["input"], a["weight"], a["bias"])


def matmul_function(node: fx.Node, values: Values) -> None:
    """Handle x @ W, torch.matmul and torch.mm with a constant matrix (F_in, F_out)."""
    names = ("input", "mat2" if "mat2" in node.kwargs else "other")
    value, weight = bind_arguments(node, values, names, {}).values()
    _product(node, values, value, weight, None)


def addmm_function(node: fx.Node, values: Values) -> None:
    """Handle torch.addmm(bias, x, W)."""
    bias, value, weight = node.args[:3] if len(node.args) == 3 else (None, None, None)
    if not isinstance(value, fx.Node) or node.kwargs:
        raise UnsupportedModuleError(
            "a matrix product with factors", node=values.path(node), allowed="torch.addmm(b, x, W)"
        )
    _product(node, values, value, values.resolve(weight), values.resolve(bias))


def _product(node: fx.Node, values: Values, value: Any, weight: Any, bias: Tensor | None) -> None:
    if values.value(value) is None or weight.ndim != 2:
        raise UnsupportedModuleError(
            "a matrix product of other things than features and a constant matrix",
            node=values.path(node),
            allowed="x @ W, with x (N, F_in) and W (F_in, F_out)",
        )
    _linear(node, values, value, weight.T, bias)


def _batch_norm(
    node: fx.Node,
    values: Values,
    value: Any,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> None:
    if mean is None or var is None:
        raise UnsupportedModuleError(
            "a norm without running statistics changes with the samples",
            node=values.path(node),
            allowed="track_running_stats=True",
            remedy="train it with BatchNorm in its place",
        )
    source = values.source(node, value)
    channels = int(mean.shape[0])
    scale = np.ones(channels) if weight is None else as_array(weight)
    with np.errstate(all="ignore"):
        gain = scale / np.sqrt(as_array(var) + eps)
        offset = as_array(bias, channels) - as_array(mean) * gain
    result = BatchNorm(values.new_name(node), (source.name,), gain, offset)
    values.emit(node, result, source)


def batch_norm_module(node: fx.Node, values: Values) -> None:
    """Handle nn.BatchNorm, and nn.InstanceNorm with running statistics."""
    m = called_module(node)
    _batch_norm(node, values, node.args[0], m.running_mean, m.running_var, m.weight, m.bias, m.eps)


def batch_norm_function(node: fx.Node, values: Values) -> None:
    """Handle F.batch_norm."""
    names = (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    )
    defaults = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}
    a = bind_arguments(node, values, names, defaults)
    if a["training"]:
        raise UnsupportedModuleError(
            "F.batch_norm with training=True changes with the batch",
            node=values.path(node),
            remedy="pass training=self.training and convert in evaluation mode",
        )
    _batch_norm(
        node,
        values,
        a["input"],
        a["running_mean"],
        a["running_var"],
        a["weight"],
        a["bias"],
        a["eps"],
    )
