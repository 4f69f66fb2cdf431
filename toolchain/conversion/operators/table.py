"""Which handler takes which module type, function or tensor method.

A handler gets the fx node and the values known so far and returns the float nodes it makes, or
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
from toolchain.conversion.operators import activations, joining, pooling, shaping, weighted
from toolchain.conversion.operators.values import Handler

MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: weighted.conv_module,
    nn.Linear: weighted.linear_module,
    nn.BatchNorm1d: weighted.batch_norm_module,
    nn.BatchNorm2d: weighted.batch_norm_module,
    nn.AvgPool2d: pooling.avg_pool_module,
    nn.AdaptiveAvgPool2d: pooling.adaptive_avg_module,
    nn.MaxPool2d: pooling.max_pool_module,
    nn.AdaptiveMaxPool2d: pooling.adaptive_max_module,
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
    F.adaptive_avg_pool2d: pooling.adaptive_avg_function,
    F.max_pool2d: pooling.max_pool_function,
    torch.max_pool2d: pooling.max_pool_function,
    F.adaptive_max_pool2d: pooling.adaptive_max_function,
    torch.mean: pooling.mean_function,
    operator.add: joining.add,
    operator.iadd: joining.add,
    torch.add: joining.add,
    torch.cat: joining.concatenate,
    torch.concat: joining.concatenate,
    torch.concatenate: joining.concatenate,
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
    "add": joining.add,
    "add_": joining.add,
    "mean": pooling.mean_function,
}


def supported() -> str:
    """What the tracer knows, for error messages."""
    layers = sorted(m.__name__ for m in MODULES if m is not nn.ReLU)
    joins = "a + b, torch.cat"
    return f"{', '.join(layers)}, their functional forms, {joins}, and {', '.join(registered())}"
