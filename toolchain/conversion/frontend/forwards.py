"""Forwards of other projects' modules: without noise, and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

PER_CHANNEL = torch.fake_quantize_per_channel_affine


class InDouble(TorchFunctionMode):
    """Inside the `with` block, quantizers of torch that take float32 only take float64 too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is PER_CHANNEL:
            values, scale, *rest = args
            return func(values, scale.float(), *rest, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block, the official NQ layers compute their activation alone.

    In training mode they add noise on the GPU, whatever `eval()` says. Otherwise they compare
    themselves with a spiking run, and append the result to lists.
    """
    layers = [m for m in model.modules() if type_before_parametrizations(m).__name__ == "MPLayer"]
    held = [(vars(m), dict(vars(m))) for m in layers if hasattr(m, "gaps_var")]
    for attributes, _ in held:
        attributes.update(train_mode=False, snn_rate=0.0, gaps_var=[], gaps_mean=[])
    try:
        yield
    finally:
        for attributes, before in held:
            attributes.update(before)
