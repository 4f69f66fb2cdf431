"""Convolutions, dense layers and BatchNorm, as modules and as functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx

from toolchain.conversion.frontend.operators.values import (
    Values,
    as_array,
    as_pair,
    bind_arguments,
    called_module,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import BatchNorm, Conv2d, FloatNode, Linear


def _conv_node(
    node: fx.Node, values: Values, source: fx.Node, weight: Tensor, bias: Tensor | None, **how: Any
) -> FloatNode:
    padding, stride, dilation = how["padding"], as_pair(how["stride"]), as_pair(how["dilation"])
    if padding == "valid":
        padding = 0
    if padding == "same":
        reach = [dilation[i] * (int(weight.shape[2 + i]) - 1) for i in range(2)]
        if stride != (1, 1) or any(r % 2 for r in reach):
            raise UnsupportedModuleError(
                "padding='same' is uneven here",
                node=values.path(node),
                allowed="odd kernels and stride 1",
                remedy="give the padding as numbers",
            )
        padding = (reach[0] // 2, reach[1] // 2)
    result = Conv2d(
        values.new_name(node),
        (values.names[source],),
        as_array(weight),
        as_array(bias, int(weight.shape[0])),
        stride,
        as_pair(padding),
        dilation,
        int(how["groups"]),
    )
    return values.made(node, result, source)


def conv_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.Conv2d."""
    m = called_module(node, values)
    if m.padding_mode != "zeros" and m.padding not in (0, (0, 0), "valid"):
        raise UnsupportedModuleError(
            "padding mode is not supported",
            node=values.path(node),
            found=m.padding_mode,
            allowed="zeros",
        )
    source = values.source(node, node.args[0])
    return _conv_node(
        node,
        values,
        source,
        m.weight,
        m.bias,
        stride=m.stride,
        padding=m.padding,
        dilation=m.dilation,
        groups=m.groups,
    )


def conv_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.conv2d."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    a = bind_arguments(node, values, names, defaults)
    source = values.source(node, a.pop("input"))
    return _conv_node(node, values, source, a.pop("weight"), a.pop("bias"), **a)


def _linear(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None
) -> FloatNode:
    source = values.source(node, value)
    result = Linear(
        values.new_name(node),
        (values.names[source],),
        as_array(weight),
        as_array(bias, int(weight.shape[0])),
    )
    return values.made(node, result, source)


def linear_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.Linear."""
    m = called_module(node, values)
    return _linear(node, values, node.args[0], m.weight, m.bias)


def linear_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.linear."""
    a = bind_arguments(node, values, ("input", "weight", "bias"), {"bias": None})
    return _linear(node, values, a["input"], a["weight"], a["bias"])


def _batch_norm(
    node: fx.Node,
    values: Values,
    value: Any,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> FloatNode:
    if mean is None or var is None:
        raise UnsupportedModuleError(
            "BatchNorm without running statistics changes with the batch",
            node=values.path(node),
            allowed="track_running_stats=True",
        )
    source = values.source(node, value)
    channels = int(mean.shape[0])
    scale = np.ones(channels) if weight is None else as_array(weight)
    with np.errstate(all="ignore"):
        gain = scale / np.sqrt(as_array(var) + eps)
        offset = as_array(bias, channels) - as_array(mean) * gain
    result = BatchNorm(values.new_name(node), (values.names[source],), gain, offset)
    return values.made(node, result, source)


def batch_norm_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.BatchNorm1d and nn.BatchNorm2d."""
    m = called_module(node, values)
    return _batch_norm(
        node, values, node.args[0], m.running_mean, m.running_var, m.weight, m.bias, m.eps
    )


def batch_norm_function(node: fx.Node, values: Values) -> FloatNode:
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
    return _batch_norm(
        node,
        values,
        a["input"],
        a["running_mean"],
        a["running_var"],
        a["weight"],
        a["bias"],
        a["eps"],
    )
