"""Quantization with the gradient passed straight through the floor.

Each function is one pass over memory (see `fused.py`); arithmetic is float32 where the tensors
are bf16, so that autocast does not move the levels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolchain.learning.activations.fused import run_elementwise, working


def _qcfs(
    z: Tensor, threshold: Tensor, levels: int, sigma: Tensor | None, noise: Tensor | None
) -> Tensor:
    ratio = (working(z) / threshold).clamp(0.0, 1.0)
    a = threshold * ((ratio * levels + 0.5).floor() / levels)
    if sigma is not None and noise is not None:
        a = a - sigma * working(noise)
    return a.to(z.dtype)


def _qcfs_backward(
    z: Tensor, gradient: Tensor, threshold: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    ratio, g = working(z) / threshold, working(gradient)
    inside = (ratio >= 0.0) & (ratio <= 1.0)
    clipped = ratio.clamp(0.0, 1.0)
    error = (clipped * levels + 0.5).floor() / levels - torch.where(inside, clipped, 0.0)
    return torch.where(inside, g, 0.0).to(gradient.dtype), (error * g).sum()


class _QCFS(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        threshold: Tensor,
        levels: int,
        sigma: Tensor | None,
        noise: Tensor | None,
    ) -> Any:
        ctx.save_for_backward(z, threshold)
        ctx.levels = levels
        return run_elementwise(_qcfs, z, threshold, levels, sigma, noise)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold = ctx.saved_tensors
        to_z, to_threshold = run_elementwise(_qcfs_backward, z, gradients[0], threshold, ctx.levels)
        return to_z, to_threshold.to(threshold.dtype).reshape(threshold.shape), None, None, None


def _cqrelu(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
    ratio = (working(x) / threshold).clamp(0.0, 1.0)
    return (threshold * ((ratio * levels).floor() / levels)).to(x.dtype)


def _cqrelu_backward(x: Tensor, gradient: Tensor, threshold: Tensor) -> Tensor:
    ratio, g = working(x) / threshold, working(gradient)
    inside = (ratio >= 0.0) & (ratio <= 1.0)
    clipped = (g * threshold).clamp(-1.0, 1.0) / threshold
    return torch.where(inside, clipped, 0.0).to(gradient.dtype)


class _CQReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, levels: int) -> Any:
        ctx.save_for_backward(x, threshold)
        return run_elementwise(_cqrelu, x, threshold, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, threshold = ctx.saved_tensors
        return run_elementwise(_cqrelu_backward, x, gradients[0], threshold), None, None


def qcfs(
    z: Tensor,
    threshold: Tensor,
    levels: int,
    sigma: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """QCFS: `lam * floor(clip(z / lam, 0, 1) * L + 1/2) / L`, `lam` a scalar tensor, `z` any shape.

    With `sigma`, a scalar tensor, and `noise`, of the shape of `z`, `sigma * noise` is taken from
    it (NQ). Backward: as if the floor were the identity (Bengio et al., 2013). To z the gradient
    passes inside [0, lam]; to lam go a/lam - z/lam inside, 1 above and 0 below.
    """
    result: Tensor = _QCFS.apply(z, threshold, levels, sigma, noise)  # type: ignore[no-untyped-call]
    return result


def cqrelu(x: Tensor, levels: int, threshold: Tensor | None = None) -> Tensor:
    """CQReLU: `lam * floor(Q * clip(x / lam, 0, 1)) / Q`, `lam` a scalar tensor, by default 1.

    Backward: hardtanh of the incoming gradient inside [0, lam], zero elsewhere (CASC, where lam is
    1). The gradient is clipped in units of lam, as it would be if weights had them.
    """
    lam = x.new_ones(()) if threshold is None else threshold
    result: Tensor = _CQReLU.apply(x, lam, levels)  # type: ignore[no-untyped-call]
    return result
