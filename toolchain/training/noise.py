"""Estimate of NQ's noise intensity from the spiking network itself.

After every epoch, on the held-out split, each layer on its own propagated input:
`gap = a_ann - (lam / T) * sum_t s_t`; per batch the variance over all elements;
`sigma = sqrt(mean over batches)`. Source: official NQ code (Huang et al., IEEE TNNLS 2025).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toolchain.activations import NQ, Mode, QuantizedActivation, activation_mode
from toolchain.training.evaluate import batches


@torch.no_grad()
def residual_error_std(model: nn.Module, x: Tensor, num_steps: int) -> dict[str, float]:
    """Standard deviation of `gap` for every quantized activation, by qualified path.

    Parameters
    ----------
    x:
        Normalised samples, (N, ...).
    num_steps:
        Steps T of the spiking network.
    """
    activations = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedActivation)}
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in activations.items()]
    was_training = model.training
    model.eval()
    variances: dict[str, list[float]] = {n: [] for n in activations}
    try:
        for batch in batches(x):
            model(batch)
            ann = dict(seen)
            with activation_mode(model, Mode.SPIKING, num_steps):
                model(batch.repeat(num_steps, *([1] * (batch.ndim - 1))))
            for name in activations:
                rate = seen[name].reshape(num_steps, len(batch), -1).mean(0)
                gap = ann[name].reshape(len(batch), -1) - rate
                variances[name].append(float(gap.var(unbiased=False)))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return {n: (sum(v) / len(v)) ** 0.5 for n, v in variances.items()}


def update_sigma(model: nn.Module, x: Tensor, num_steps: int) -> dict[str, float]:
    """Set `sigma` of every NQ activation from `residual_error_std`; returns what was set."""
    estimates = residual_error_std(model, x, num_steps)
    modules = dict(model.named_modules())
    changed = {}
    for name, value in estimates.items():
        activation = modules[name]
        if isinstance(activation, NQ):
            activation.sigma.fill_(value)
            changed[name] = value
    return changed
