"""Average pools, as modules and as functions."""

from __future__ import annotations

from typing import Any

from torch import fx

from toolchain.conversion.operators.values import Values, as_pair, bind_arguments, called_module
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import AvgPool2d, FloatNode


def _avg_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> FloatNode:
    if how["ceil_mode"] or how["divisor_override"]:
        raise UnsupportedModuleError(
            "average pool with ceil_mode or divisor_override", node=values.path(node)
        )
    source = values.source(node, value)
    kernel = as_pair(how["kernel_size"])
    stride = kernel if how["stride"] in (None, ()) else as_pair(how["stride"])
    padding = as_pair(how["padding"])
    result = AvgPool2d(
        values.new_name(node),
        values.names[source],
        kernel,
        stride,
        padding,
        bool(how["count_include_pad"]),
    )
    return values.made(node, source, result)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def avg_pool_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.AvgPool2d."""
    m = called_module(node, values)
    return _avg_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _POOL})


def avg_pool_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.avg_pool2d."""
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }
    a = bind_arguments(node, values, ("input", *_POOL), defaults)
    return _avg_pool(node, values, a.pop("input"), **a)


def _adaptive(node: fx.Node, values: Values, value: Any, output_size: Any) -> FloatNode:
    source = values.source(node, value)
    shape = values.shapes[source]
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    target = [shape[1 + i] if wanted[i] is None else int(wanted[i]) for i in range(len(shape[1:]))]
    if len(shape) != 3 or any(shape[1 + i] % target[i] for i in range(2)):
        raise UnsupportedModuleError(
            "adaptive average pool with uneven windows",
            node=values.path(node),
            found=f"{shape} to {wanted}",
            allowed="output sizes that divide the input's",
        )
    kernel = (shape[1] // target[0], shape[2] // target[1])
    result = AvgPool2d(values.new_name(node), values.names[source], kernel, kernel, (0, 0))
    return values.made(node, source, result)


def adaptive_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.AdaptiveAvgPool2d."""
    return _adaptive(node, values, node.args[0], called_module(node, values).output_size)


def adaptive_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.adaptive_avg_pool2d."""
    a = bind_arguments(node, values, ("input", "output_size"), {})
    return _adaptive(node, values, a["input"], a["output_size"])
