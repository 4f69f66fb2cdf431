"""The handler of each module type, function and tensor method.

A handler gets the fx node and the values known so far. It adds the float nodes it makes, and
records what the fx node stands for.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from toolchain.conversion.frontend.adapters import registered
from toolchain.conversion.frontend.forwards import CASTS
from toolchain.conversion.frontend.operators import (
    activations,
    affine,
    merge,
    pooling,
    reshape,
    sequences,
    weighted,
)
from toolchain.conversion.frontend.operators.values import Handler
from toolchain.learning.activations import cqrelu, qcfs

MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: weighted.conv_module,
    nn.Conv1d: sequences.conv_module,
    nn.ConvTranspose2d: weighted.transposed_module,
    nn.ConvTranspose1d: sequences.transposed_module,
    nn.Linear: weighted.linear_module,
    nn.BatchNorm1d: weighted.batch_norm_module,
    nn.BatchNorm2d: weighted.batch_norm_module,
    nn.SyncBatchNorm: weighted.batch_norm_module,
    nn.InstanceNorm1d: weighted.batch_norm_module,
    nn.InstanceNorm2d: weighted.batch_norm_module,
    nn.AvgPool2d: pooling.avg_pool_module,
    nn.AdaptiveAvgPool2d: pooling.adaptive_avg_module,
    nn.MaxPool2d: pooling.max_pool_module,
    nn.AdaptiveMaxPool2d: pooling.adaptive_max_module,
    nn.AvgPool1d: sequences.avg_pool,
    nn.MaxPool1d: sequences.max_pool_1d,
    nn.AdaptiveAvgPool1d: sequences.adaptive_pool,
    nn.AdaptiveMaxPool1d: sequences.adaptive_pool,
    nn.Flatten: reshape.rearrange,
    nn.Unflatten: reshape.rearrange,
    nn.PixelShuffle: reshape.rearrange,
    nn.PixelUnshuffle: reshape.rearrange,
    nn.ChannelShuffle: reshape.rearrange,
    nn.Upsample: reshape.upsample_module,
    nn.UpsamplingNearest2d: reshape.upsample_module,
    nn.ZeroPad2d: reshape.pad_module,
    nn.ConstantPad2d: reshape.pad_module,
    nn.ZeroPad1d: reshape.pad_module,
    nn.ConstantPad1d: reshape.pad_module,
    nn.Dropout: reshape.pass_on,
    nn.Dropout1d: reshape.pass_on,
    nn.Dropout2d: reshape.pass_on,
    nn.Identity: reshape.pass_on,
    nn.ReLU: activations.relu,
    nn.ReLU6: activations.clamp_module,
    nn.Hardtanh: activations.clamp_module,
    nn.Threshold: activations.threshold_module,
    nn.Softmax: activations.final,
    nn.LogSoftmax: activations.final,
    nn.Sigmoid: activations.final,
}
FUNCTIONS: dict[Any, Handler] = {
    F.conv2d: weighted.conv_function,
    torch.conv2d: weighted.conv_function,
    F.conv_transpose2d: weighted.transposed_function,
    F.conv_transpose1d: sequences.transposed_function,
    F.linear: weighted.linear_function,
    F.batch_norm: weighted.batch_norm_function,
    F.avg_pool2d: pooling.avg_pool_function,
    F.adaptive_avg_pool2d: pooling.adaptive_avg_function,
    F.max_pool2d: pooling.max_pool_function,
    torch.max_pool2d: pooling.max_pool_function,
    F.adaptive_max_pool2d: pooling.adaptive_max_function,
    torch.mean: pooling.mean_function,
    torch.sum: pooling.sum_function,
    torch.amax: pooling.amax_function,
    F.conv1d: sequences.conv_function,
    F.avg_pool1d: sequences.avg_pool,
    F.max_pool1d: sequences.max_pool_1d,
    torch.max_pool1d: sequences.max_pool_1d,
    F.adaptive_avg_pool1d: sequences.adaptive_pool,
    F.adaptive_max_pool1d: sequences.adaptive_pool,
    torch.cat: merge.concatenate,
    torch.concat: merge.concatenate,
    torch.concatenate: merge.concatenate,
    F.dropout: reshape.dropout_function,
    F.pad: reshape.pad_function,
    F.interpolate: reshape.upsample_function,
    F.relu: activations.relu,
    torch.relu: activations.relu,
    F.relu6: activations.relu6_function,
    F.hardtanh: activations.clamp_function,
    F.threshold: activations.threshold_function,
    torch.maximum: activations.maximum_function,
    torch.addmm: weighted.addmm_function,
    torch.clamp: activations.clamp_function,
    torch.clip: activations.clamp_function,
    torch.clamp_min: activations.clamp_min_function,
    F.softmax: activations.final,
    torch.softmax: activations.final,
    F.log_softmax: activations.final,
    torch.log_softmax: activations.final,
    torch.sigmoid: activations.final,
    F.sigmoid: activations.final,
    getattr: reshape.rearrange,
    qcfs: activations.qcfs_function,
    cqrelu: activations.cqrelu_function,
}
METHODS: dict[str, Handler] = {
    "relu": activations.relu,
    "relu_": activations.relu,
    "clamp": activations.clamp_function,
    "clamp_": activations.clamp_function,
    "clip": activations.clamp_function,
    "clamp_min": activations.clamp_min_function,
    "softmax": activations.final,
    "log_softmax": activations.final,
    "sigmoid": activations.final,
    "contiguous": reshape.pass_on,
    "clone": reshape.pass_on,
    "detach": reshape.pass_on,
    **dict.fromkeys(CASTS, reshape.cast),
    "mean": pooling.mean_function,
    "sum": pooling.sum_function,
    "amax": pooling.amax_function,
    "maximum": activations.maximum_function,
    "unfold": reshape.rearrange,
}
_ARITHMETIC: dict[str, Handler] = {
    "add iadd add_": merge.add,
    "sub isub sub_ subtract": merge.subtract,
    "mul imul mul_ multiply": affine.scale,
    "truediv itruediv div div_ divide true_divide": affine.scale,
    "neg negative": affine.negate,
    "matmul mm": weighted.matmul_function,
}
for _names, _handler in {**_ARITHMETIC, reshape.VIEWS: reshape.rearrange}.items():
    for _name in _names.split():
        if hasattr(torch.Tensor, _name):
            METHODS[_name] = _handler
        for _home in (operator, torch, F):
            if hasattr(_home, _name):
                FUNCTIONS[getattr(_home, _name)] = _handler
ARRANGING = (reshape.rearrange, reshape.pass_on, reshape.cast, reshape.dropout_function)
"""Handlers of what leaves the values of a tensor as they are, at most in another order."""


def supported() -> str:
    """The supported operations, for error messages."""
    layers = sorted(m.__name__ for m in MODULES if m is not nn.ReLU)
    joins = "a + b, torch.cat, constant factors and offsets, views, slices"
    return f"{', '.join(layers)}, their functional forms, {joins}, and {', '.join(registered())}"
