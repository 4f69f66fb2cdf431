"""Which handler takes which module type, function or tensor method.

A handler gets the fx node and the values known so far and returns the float node it makes, or
None where the operation changes nothing in evaluation or yields a constant.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from toolchain.activations import cqrelu, qcfs
from toolchain.conversion.adapters import registered
from toolchain.conversion.operators import activations, pooling, shaping, weighted
from toolchain.conversion.operators.values import Handler

MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: weighted.conv_module,
    nn.Linear: weighted.linear_module,
    nn.BatchNorm1d: weighted.batch_norm_module,
    nn.BatchNorm2d: weighted.batch_norm_module,
    nn.AvgPool2d: pooling.avg_pool_module,
    nn.AdaptiveAvgPool2d: pooling.adaptive_module,
    nn.Flatten: shaping.flatten_module,
    nn.Dropout: shaping.pass_on,
    nn.Dropout1d: shaping.pass_on,
    nn.Dropout2d: shaping.pass_on,
    nn.Identity: shaping.pass_on,
    nn.ReLU: activations.relu,
}
FUNCTIONS: dict[Any, Handler] = {
    F.conv2d: weighted.conv_function,
    torch.conv2d: weighted.conv_function,
    F.linear: weighted.linear_function,
    F.batch_norm: weighted.batch_norm_function,
    F.avg_pool2d: pooling.avg_pool_function,
    torch._C._nn.avg_pool2d: pooling.avg_pool_function,
    F.adaptive_avg_pool2d: pooling.adaptive_function,
    torch.flatten: shaping.flatten_function,
    F.dropout: shaping.dropout_function,
    F.relu: activations.relu,
    torch.relu: activations.relu,
    getattr: shaping.attribute,
    operator.getitem: shaping.item,
    qcfs: activations.qcfs_function,
    cqrelu: activations.cqrelu_function,
}
METHODS: dict[str, Handler] = {
    "flatten": shaping.flatten_function,
    "view": shaping.view,
    "reshape": shaping.view,
    "size": shaping.size,
    "relu": activations.relu,
    "contiguous": shaping.pass_on,
}


def supported() -> str:
    """What the tracer knows, for error messages."""
    layers = sorted(m.__name__ for m in MODULES if m is not nn.ReLU)
    return f"{', '.join(layers)}, their functional forms, and {', '.join(registered())}"


def remedy(what: str) -> str:
    """What to do about an unsupported operation."""
    if "MaxPool" in what or "max_pool" in what:
        return "replace max pools by average pools and train again, as the NQ paper does"
    if what.rpartition(".")[2] in ("add", "iadd", "cat", "concat", "stack"):
        return "this version converts chains of layers, without residual sums or concatenation"
    if "SiLU" in what or "GELU" in what or "Sigmoid" in what or "Tanh" in what:
        return "replace the activation by toolchain.activations.QCFS, NQ or CQReLU and train again"
    return "replace it by a supported one, or register an activation with --adapter FILE.py"
