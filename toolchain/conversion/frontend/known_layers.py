"""Layers of other projects that quantize their weights: taken as plain layers of those weights.

Such a layer is run once, and the weights are those that it gives to torch, whatever computed them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from toolchain.conversion.frontend.user_module import numbers, outputs
from toolchain.errors import UnsupportedModuleError

KNOWN_LAYERS = (
    ("QuantConv2d", ("weight_quant",)),  # Xilinx/brevitas; yangfan-hu/Fast-SNN for CIFAR-10
    ("QuantLinear", ("weight_quant",)),
    ("QuantConv2d", ("weight_alpha", "bit")),  # yangfan-hu/Fast-SNN, the other tasks
    ("QuantLinear", ("weight_alpha", "bit")),
    ("first_conv", ("layer_type",)),  # yangfan-hu/Fast-SNN: 8 bits
    ("last_fc", ("layer_type",)),
    ("Conv2d", ("weight_fake_quant",)),  # torch.ao.nn.qat
    ("Linear", ("weight_fake_quant",)),
)
"""Class name and attributes of each."""


class _Calls(TorchFunctionMode):
    """Keeps the arguments and result of every convolution and dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Tensor, Tensor, Tensor | None, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear):
            given, weight, bias = (*args, *(kwargs or {}).values(), None)[:3]
            self.made.append((given, numbers(weight), numbers(bias), numbers(result)))
        return result


def plain_layer(module: Any) -> nn.Conv2d | nn.Linear:
    """The plain layer, float64, that computes what `module` computes.

    Raises
    ------
    UnsupportedModuleError
        If the module does more than one convolution or dense layer, or is still in training.
    """
    quantizer = getattr(module, "weight_fake_quant", None)
    if quantizer is not None and int(quantizer.observer_enabled[0]):
        raise UnsupportedModuleError(
            "the observer of the weights is on: their scale changes with each batch",
            found="weight_fake_quant.observer_enabled = 1",
            remedy="model.apply(torch.ao.quantization.disable_observer) after training",
        )
    if getattr(getattr(module, "bias_quant", None), "requires_input_scale", False):
        raise UnsupportedModuleError(
            "the scale of the bias comes from the layer's input",
            found="bias_quant of brevitas with requires_input_scale",
            allowed="bias_quant=None, or Int8BiasPerTensorFloatInternalScaling",
        )
    plain: nn.Conv2d | nn.Linear
    if hasattr(module, "kernel_size"):
        plain = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
            padding_mode=module.padding_mode,
            device="meta",
        )
        extents = zip(module.dilation, module.kernel_size, strict=True)
        shape = (1, module.in_channels, *(d * (k - 1) + 1 for d, k in extents))
    else:
        plain = nn.Linear(module.in_features, module.out_features, device="meta")
        shape = (1, module.in_features)
    sample = torch.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape).double()
    with _Calls() as calls:
        result = outputs(module, sample)[0]
    if len(calls.made) != 1 or not _is_alone(sample, result, calls.made[0]):
        raise UnsupportedModuleError(
            "the layer does more than a convolution or dense layer with quantized weights",
            found=f"{type(module).__name__} that also changes its input or output",
            allowed="quantized weights and biases",
            remedy="quantize activations in modules of their own, without input_quant and "
            "output_quant",
        )
    _, weight, bias, _ = calls.made[0]
    plain.weight = nn.Parameter(weight.detach().double())
    plain.bias = None if bias is None else nn.Parameter(bias.detach().double())
    return plain


def _is_alone(sample: Tensor, result: Tensor, call: tuple[Any, ...]) -> bool:
    """Whether a call took the module's sample and gave its result."""
    given, _, _, output = call
    return torch.equal(numbers(given).double(), sample) and torch.equal(numbers(result), output)
