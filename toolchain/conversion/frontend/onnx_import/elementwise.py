"""Operators of ONNX that take each value by itself: arithmetic, activations, casts."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.conversion.frontend.onnx_import.call import (
    MAKERS,
    Call,
    Function,
    Made,
    implements,
    reshaped,
)
from toolchain.conversion.frontend.onnx_import.graph import DTYPES

_FUNCTIONS: dict[str, Function] = {
    "Neg": operator.neg,
    "Abs": torch.abs,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Erf": torch.erf,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sign": torch.sign,
    "Not": torch.logical_not,
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Pow": operator.pow,
    "Equal": operator.eq,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "And": operator.and_,
    "Or": operator.or_,
    "Where": torch.where,
}
_ACTIVATIONS: dict[str, Callable[[Call], nn.Module]] = {
    "Relu": lambda _: nn.ReLU(),
    "LeakyRelu": lambda call: nn.LeakyReLU(call.attribute("alpha", 0.01)),
    "Elu": lambda call: nn.ELU(call.attribute("alpha", 1.0)),
    "Celu": lambda call: nn.CELU(call.attribute("alpha", 1.0)),
    "ThresholdedRelu": lambda call: nn.Threshold(call.attribute("alpha", 1.0), 0.0),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Tanh": lambda _: nn.Tanh(),
    "Softplus": lambda _: nn.Softplus(),
    "Softsign": lambda _: nn.Softsign(),
    "HardSwish": lambda _: nn.Hardswish(),
    "Mish": lambda _: nn.Mish(),
    "Gelu": lambda call: nn.GELU(call.attribute("approximate", "none")),
}
MAKERS.update({op: lambda _, function=f: function for op, f in _FUNCTIONS.items()})  # type: ignore[misc]
MAKERS.update(_ACTIVATIONS)


def is_float(number: int) -> bool:
    """Whether a number of `TensorProto.DataType` is a floating type."""
    return number in DTYPES and DTYPES[number].is_floating_point


@implements("Div")
def _div(call: Call) -> Made:
    """Integers are divided towards zero."""
    if any(x is not None and x.is_floating_point() for x in call.inputs):
        return operator.truediv
    return lambda a, b: torch.div(a, b, rounding_mode="trunc")


@implements("Sum")
def _sum(call: Call) -> Made:
    return lambda *values: reduce(operator.add, values)


@implements("Max", "Min")
def _extreme(call: Call) -> Made:
    """A number among the inputs is a bound, as in `Max(x, 0)`."""
    is_max = call.node.op == "Max"
    if is_max and call.data == (True, False):
        bound = one_number(call.constant(1), call.x.ndim)
        if isinstance(bound, float) and bound == 0:
            return nn.ReLU()

    def extreme(one: Any, other: Any) -> Any:
        if isinstance(other, float):
            return torch.clamp(one, min=other) if is_max else torch.clamp(one, max=other)
        return torch.maximum(one, other) if is_max else torch.minimum(one, other)

    return lambda *values: reduce(extreme, sorted(values, key=lambda v: isinstance(v, float)))


@implements("Clip")
def _clip(call: Call) -> Made:
    low, high = call.setting("min", 1), call.setting("max", 2)
    if low is None and high is None:
        return None
    if low == 0 and high is None:
        return nn.ReLU()
    if low is not None and high is not None and call.x.is_floating_point():
        return nn.Hardtanh(low, high)
    return lambda x, *_: torch.clamp(x, low, high)


@implements("HardSigmoid")
def _hard_sigmoid(call: Call) -> Made:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@implements("Selu")
def _selu(call: Call) -> Made:
    alpha, gamma = call.attribute("alpha", 1.67326319), call.attribute("gamma", 1.05070102)
    return lambda x: gamma * F.elu(x, alpha)


@implements("PRelu")
def _prelu(call: Call) -> Made:
    return lambda x, slope: torch.where(x >= 0, x, x * slope)


@implements("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Made:
    """Before opset 13 all axes from `axis` on are one."""
    kind = nn.Softmax if call.node.op == "Softmax" else nn.LogSoftmax
    joined = call.node.opset < 13
    axes = call.x.ndim
    axis = call.attribute("axis", 1 if joined else -1) % axes
    if not joined or axis == axes - 1:
        return kind(axis)
    back = reshaped(call, call.x.shape)
    return lambda x: back(kind(-1)(x.flatten(axis)))


@implements("Cast", "CastLike")
def _cast(call: Call) -> Made:
    """Data stay real numbers in the type they have; only constants become integers."""
    if call.node.op == "Cast":
        number = call.attribute("to")
        if number not in DTYPES:
            raise call.refused("to this type", number, allowed="integers and real numbers")
        dtype = DTYPES[number]
    else:
        dtype = call.inputs[1].dtype if call.inputs[1] is not None else call.x.dtype
    if call.data[0] and dtype.is_floating_point:
        return None
    return lambda x, *_: x.to(dtype)


@implements("Identity")
def _identity(call: Call) -> Made:
    return None


@implements("Dropout")
def _dropout(call: Call) -> Made:
    if call.setting("training_mode", 2, default=False):
        raise call.refused("in training mode", remedy="export the network in evaluation mode")
    return None


def one_number(value: Tensor, data_axes: int) -> Any:
    """A constant as the number it is, if it is one and adds no axis; torch reads numbers easier."""
    is_number = value.numel() == 1 and value.ndim <= data_axes and value.is_floating_point()
    return value.item() if is_number else value
