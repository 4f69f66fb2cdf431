"""The handler of each module type, function and tensor method.

A handler gets the fx node and the values known so far. It returns the float nodes it makes, or
None if the operation changes nothing in evaluation mode or yields a constant.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from toolchain.conversion.frontend.adapters import registered
from toolchain.conversion.frontend.operators import activations, merge, pooling, reshape, weighted
from toolchain.conversion.frontend.operators.values import Handler
from toolchain.learning.activations import cqrelu, qcfs

MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: weighted.conv_module,
    nn.Linear: weighted.linear_module,
    nn.BatchNorm1d: weighted.batch_norm_module,
    nn.BatchNorm2d: weighted.batch_norm_module,
    nn.SyncBatchNorm: weighted.batch_norm_module,
    nn.AvgPool2d: pooling.avg_pool_module,
    nn.AdaptiveAvgPool2d: pooling.adaptive_avg_module,
    nn.MaxPool2d: pooling.max_pool_module,
    nn.AdaptiveMaxPool2d: pooling.adaptive_max_module,
    nn.Flatten: reshape.flatten_module,
    nn.Dropout: reshape.pass_on,
    nn.Dropout1d: reshape.pass_on,
    nn.Dropout2d: reshape.pass_on,
    nn.Identity: reshape.pass_on,
    nn.ReLU: activations.relu,
    nn.ZeroPad2d: reshape.pad_module,
    nn.ConstantPad2d: reshape.pad_module,
}
FUNCTIONS: dict[Any, Handler] = {
    F.conv2d: weighted.conv_function,
    torch.conv2d: weighted.conv_function,
    F.linear: weighted.linear_function,
    F.batch_norm: weighted.batch_norm_function,
    F.avg_pool2d: pooling.avg_pool_function,
    F.adaptive_avg_pool2d: pooling.adaptive_avg_function,
    F.max_pool2d: pooling.max_pool_function,
    torch.max_pool2d: pooling.max_pool_function,
    F.adaptive_max_pool2d: pooling.adaptive_max_function,
    torch.mean: pooling.mean_function,
    operator.add: merge.add,
    operator.iadd: merge.add,
    torch.add: merge.add,
    torch.cat: merge.concatenate,
    torch.concat: merge.concatenate,
    torch.concatenate: merge.concatenate,
    torch.flatten: reshape.flatten_function,
    F.dropout: reshape.dropout_function,
    F.pad: reshape.pad_function,
    F.relu: activations.relu,
    torch.relu: activations.relu,
    getattr: reshape.attribute,
    operator.getitem: reshape.item,
    qcfs: activations.qcfs_function,
    cqrelu: activations.cqrelu_function,
}
METHODS: dict[str, Handler] = {
    "flatten": reshape.flatten_function,
    "view": reshape.view,
    "reshape": reshape.view,
    "size": reshape.size,
    "relu": activations.relu,
    "contiguous": reshape.pass_on,
    "add": merge.add,
    "add_": merge.add,
    "mean": pooling.mean_function,
}


def supported() -> str:
    """The supported operations, for error messages."""
    layers = sorted(m.__name__ for m in MODULES if m is not nn.ReLU)
    joins = "a + b, torch.cat"
    return f"{', '.join(layers)}, their functional forms, {joins}, and {', '.join(registered())}"
