"""IF neurons in float over all steps, with a surrogate gradient.

With u(t) = v(t-1) + z(t), a neuron sends o(t) = lam where u(t) >= lam, and v(t) = u(t) - o(t).
Backward, the step function of u / lam has the derivative max(0, 1 - |u / lam - 1|), a triangle
(Esser et al., PNAS 2016), and the gradient passes through the subtraction too: what a current adds
to the sum of the outputs is then between 0 and 1, however many steps follow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolchain.learning.activations.fused import run_elementwise, working


def _start(current: Tensor, threshold: Tensor, shift: Tensor) -> Tensor:
    return torch.zeros_like(working(current)) + shift * threshold


def _one_step(v: Tensor, current: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials after a step, and its output: the threshold where a neuron fires."""
    v = v + working(current)
    output = torch.where(v >= threshold, threshold, 0.0)
    return v - output, output.to(current.dtype)


def _backward(first: Tensor, threshold: Tensor, shift: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the T currents, and of the threshold; `rest` are T - 1 currents, T gradients."""
    steps = (1 + len(rest)) // 2
    v, before = _start(first, threshold, shift), []
    for current in (first, *rest[: steps - 1]):
        before.append(v + working(current))
        v, _ = _one_step(v, current, threshold)
    later, to_threshold, found = torch.zeros_like(v), torch.zeros_like(threshold), []
    for u, gradient in zip(reversed(before), reversed(rest[steps - 1 :]), strict=True):
        ratio = u / threshold
        slope = (1 - (ratio - 1).abs()).clamp(min=0.0)
        to_output = working(gradient) - later
        fired = (u >= threshold).to(u.dtype)
        to_threshold = to_threshold + (to_output * (fired - ratio * slope)).sum()
        later = later + to_output * slope
        found.append(later.to(gradient.dtype))
    return (*reversed(found), to_threshold + (shift * later).sum())


class _Spiking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, shift: Tensor, steps: int) -> Any:
        ctx.save_for_backward(z, threshold, shift)
        ctx.steps = steps
        currents, outputs = z.chunk(steps), []
        v = _start(currents[0], threshold, shift)
        for current in currents:
            v, output = run_elementwise(_one_step, v, current, threshold)
            outputs.append(output)
        return torch.cat(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, threshold, shift = ctx.saved_tensors
        first, *rest = z.chunk(ctx.steps) + gradients[0].chunk(ctx.steps)
        found = run_elementwise(_backward, first, threshold, shift, *rest)
        return torch.cat(found[:-1]), found[-1].to(threshold.dtype), None, None


def spiking(z: Tensor, threshold: Tensor, shift: Tensor, steps: int) -> Tensor:
    """Outputs of IF neurons for currents `z`, (steps * N, ...), step after step.

    `threshold` is `lam`, a scalar tensor, and v(0) is `shift` of it, a scalar or (N, ...).
    Backward: see above.
    """
    result: Tensor = _Spiking.apply(z, threshold, shift, steps)  # type: ignore[no-untyped-call]
    return result
