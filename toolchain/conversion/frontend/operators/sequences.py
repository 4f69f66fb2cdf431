"""Layers of sequences (C, L), which are images (C, 1, L)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from toolchain.conversion.frontend.operators.pooling import (
    adaptive_average,
    adaptive_max,
    average_pool,
    max_pool,
)
from toolchain.conversion.frontend.operators.values import Values, bind_arguments, called_module
from toolchain.conversion.frontend.operators.weighted import (
    check_padding_mode,
    convolution,
    transposed,
    transposed_arguments,
)
from toolchain.errors import UnsupportedModuleError


def _one(value: Any) -> Any:
    """The only number of a tuple of one, or of a setting that is a number."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 else value


def _in_rows(**how: Any) -> dict[str, Any]:
    """Settings of a layer of sequences for one of images with a single row."""
    neutral = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    return {
        name: (neutral[name], int(_one(value)))
        if name in neutral and isinstance(_one(value), int)
        else value
        for name, value in how.items()
    }


def _convolution(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None, **how: Any
) -> None:
    _check_is_sequence(node, values, value)
    convolution(node, values, value, weight.unsqueeze(2), bias, **_in_rows(**how))


_CONV = ("stride", "padding", "dilation", "groups")


def conv_module(node: fx.Node, values: Values) -> None:
    """Handle nn.Conv1d."""
    m = called_module(node)
    check_padding_mode(node, values, m)
    how = {name: getattr(m, name) for name in _CONV}
    _convolution(node, values, node.args[0], m.weight, m.bias, **how)


def conv_function(node: fx.Node, values: Values) -> None:
    """Handle F.conv1d."""
    names = ("input", "weight", "bias", *_CONV)
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    a = bind_arguments(node, values, names, defaults)
    _convolution(node, values, a.pop("input"), a.pop("weight"), a.pop("bias"), **a)


def transposed_module(node: fx.Node, values: Values) -> None:
    """Handle nn.ConvTranspose1d."""
    m = called_module(node)
    how = {name: getattr(m, name) for name in _CONV}
    _transposed(node, values, node.args[0], m.weight, m.bias, **how)


def transposed_function(node: fx.Node, values: Values) -> None:
    """Handle F.conv_transpose1d."""
    a = transposed_arguments(node, values)
    _transposed(node, values, a.pop("input"), a.pop("weight"), a.pop("bias"), **a)


def _transposed(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None, **how: Any
) -> None:
    _check_is_sequence(node, values, value)
    transposed(node, values, value, weight.unsqueeze(2), bias, **_in_rows(**how))


_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_DEFAULTS = {
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "count_include_pad": True,
    "return_indices": False,
}


def _check_is_sequence(node: fx.Node, values: Values, value: Any) -> None:
    shape = values.tensor(node, value, lowest=True).shape
    if len(shape) != 2:
        raise UnsupportedModuleError(
            "a layer of sequences gets something else",
            node=values.path(node),
            found=shape,
            allowed="(C, L)",
            remedy="input_shape=(C, L) says that samples are sequences: arrays (N, H, W) are taken "
            "as images of one channel",
        )


def _settings(node: fx.Node, values: Values, names: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """The tensor that a pool takes, and its settings as those of a pool of images."""
    if node.op == "call_module":
        m = called_module(node)
        a = {"input": node.args[0], **{name: getattr(m, name) for name in names}}
    else:
        defaults = {k: v for k, v in _DEFAULTS.items() if k in names}
        a = bind_arguments(node, values, ("input", *names), defaults)
    value = a.pop("input")
    _check_is_sequence(node, values, value)
    return value, _in_rows(**a)


def avg_pool(node: fx.Node, values: Values) -> None:
    """Handle nn.AvgPool1d and F.avg_pool1d."""
    value, how = _settings(node, values, _AVERAGE)
    average_pool(node, values, value, divisor_override=None, **how)


def max_pool_1d(node: fx.Node, values: Values) -> None:
    """Handle nn.MaxPool1d, F.max_pool1d and torch.max_pool1d."""
    value, how = _settings(node, values, _MAX)
    max_pool(node, values, value, **how)


def adaptive_pool(node: fx.Node, values: Values) -> None:
    """Handle adaptive average and max pools of sequences whose windows are equal."""
    if node.op == "call_module":
        m = called_module(node)
        a = {"input": node.args[0], "output_size": m.output_size}
        a["return_indices"] = getattr(m, "return_indices", False)
        is_max = hasattr(m, "return_indices")
    else:
        names = ("input", "output_size", "return_indices")
        a = bind_arguments(node, values, names, {"return_indices": False})
        is_max = "max" in str(getattr(node.target, "__name__", ""))
    size = (1, int(_one(a["output_size"])))
    if is_max:
        adaptive_max(node, values, a["input"], size, a["return_indices"])
    else:
        adaptive_average(node, values, a["input"], size)
