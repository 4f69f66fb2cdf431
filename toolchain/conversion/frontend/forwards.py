"""Forwards of other projects' modules: without noise, and in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

PER_CHANNEL = torch.fake_quantize_per_channel_affine
WIDE = {torch.float32, torch.float64}
"""Types of real numbers that a forward may cast to: both are float64 here."""
CASTS = ("float", "double", "to", "type", "type_as", "cuda", "cpu")
"""Methods that leave the values of a tensor as they are, if the type is one of `WIDE`."""
_CASTS = {getattr(Tensor, name): name for name in CASTS}


class InDouble(TorchFunctionMode):
    """Inside the `with` block, all real numbers are float64 on the processor.

    Casts to float32 and moves to a device keep a tensor as it is. Quantizers of torch that take
    float32 only take float64 too. A convolution takes one sample at a time: torch's own in float64
    copies every window of all of them.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is PER_CHANNEL:
            values, scale, *rest = args
            return func(values, scale.float(), *rest, **(kwargs or {}))
        if func is F.conv2d and args and type(args[0]) is Tensor and args[0].ndim == 4:  # no proxy
            samples, *rest = args
            return torch.cat([func(one, *rest, **(kwargs or {})) for one in samples.split(1)])
        if func in _CASTS:
            kinds = cast_types(_CASTS[func], (*args[1:], *(kwargs or {}).values()))
            if set(kinds) <= WIDE and (kinds or func is not Tensor.type):
                return args[0].double() if kinds else args[0]
        return func(*args, **(kwargs or {}))


def cast_types(name: str, given: Iterable[Any]) -> list[Any]:
    """The types that the cast `name` with the arguments `given` asks for; none for a move."""
    own = {"float": [torch.float32], "double": [torch.float64]}.get(name, [])
    named = [a.dtype if isinstance(a, Tensor) else a for a in given]
    return own + [a for a in named if isinstance(a, torch.dtype) or name == "type"]


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
