"""Floors whose gradient is passed straight through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _FloorSTE(torch.autograd.Function):
    """floor(x); backward: the gradient as it is (Bengio et al., 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _ClippedFloorSTE(torch.autograd.Function):
    """floor(levels * x) / levels; backward: hardtanh(gradient), i.e. clipped to [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        return (x * levels).floor() / levels

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(-1.0, 1.0), None


def floor_ste(x: Tensor) -> Tensor:
    """floor(x) with gradient 1."""
    result: Tensor = _FloorSTE.apply(x)  # type: ignore[no-untyped-call]
    return result


def clipped_floor_ste(x: Tensor, levels: int) -> Tensor:
    """floor(levels * x) / levels with gradient hardtanh(incoming gradient)."""
    result: Tensor = _ClippedFloorSTE.apply(x, levels)  # type: ignore[no-untyped-call]
    return result
