"""Elementwise functions of large tensors compiled into one pass over memory.

Eager torch takes a pass an operation; for the activations of a convolutional network that costs
several times its convolutions. `torch.compile` needs a C++ compiler (on a GPU: triton); without
one that works, and for small tensors, the same function runs eagerly.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

FUSE_FROM = 1 << 18
"""Elements from which compiling pays: a network of smaller layers trains in seconds anyway."""


@cache
def _can_compile(device: str) -> bool:
    """Whether a small function compiles here: a compiler may be there and still not work."""
    there = (
        find_spec("triton") is not None
        if device == "cuda"
        else any(shutil.which(name) for name in ("g++", "clang++"))
    )
    if not there:
        return False
    try:
        torch.compile(torch.neg, dynamic=True)(torch.zeros(8, device=device))
    except (RuntimeError, OSError):
        return False
    return True


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


def run_elementwise(function: Callable[..., Any], first: Tensor, *rest: Any) -> Any:
    """`function(first, *rest)`, fused where that pays.

    `function` is elementwise over `first` and over those of `rest` that have its shape; it returns
    tensors of that shape or scalars, and has no part in autograd. What is large is handed over
    flat, in memory order. Conversion computes in float64, eagerly: torch.fx, which traces it,
    refuses compiled functions.
    """
    pays = first.dtype != torch.float64 and first.numel() >= FUSE_FROM
    if not pays or not _can_compile(first.device.type):
        return function(first, *rest)
    order = (0, 2, 3, 1) if _is_channels_last(first) else tuple(range(first.ndim))
    laid_out = first.permute(order).shape
    back = tuple(int(i) for i in torch.tensor(order).argsort())

    def flat(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        return value.permute(order).reshape(-1) if value.shape == first.shape else value

    def shaped(value: Tensor) -> Tensor:
        return value if value.ndim == 0 else value.reshape(laid_out).permute(back)

    result = _compiled(function)(flat(first), *(flat(value) for value in rest))
    if isinstance(result, tuple):
        return tuple(shaped(value) for value in result)
    return shaped(result)


def working(x: Tensor) -> Tensor:
    """`x` in the precision to compute in."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _is_channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
