"""The residual error of the spiking network against the quantized one, and NQ's noise from it.

On the held-out split, each layer on its own propagated input:
`gap = a_ann - (lam / T) * sum_t s_t`; per batch the variance over all elements;
`sigma = sqrt(mean over batches)`. Source: official NQ code (Huang et al., IEEE TNNLS 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.activations import NQ, Mode, QuantizedActivation, activation_mode
from toolchain.training.evaluate import batches, in_evaluation


@dataclass(frozen=True)
class SpikingComparison:
    """The quantized network and its float spiking counterpart on the same samples.

    Attributes
    ----------
    quantized, spiking:
        Logits, float32 (N, K); spiking ones are summed over the steps.
    residual_std:
        Deviation of the residual error of each quantized activation, by qualified path.
    """

    quantized: Tensor
    spiking: Tensor
    residual_std: dict[str, float]


@torch.no_grad()
def compare_with_spiking(model: nn.Module, x: Tensor, num_steps: int) -> SpikingComparison:
    """Run both networks, in float32, in evaluation mode.

    Parameters
    ----------
    x:
        Normalised samples, (N, ...).
    num_steps:
        Steps T of the spiking network.
    """
    activations = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedActivation)}
    ann: dict[str, Tensor] = {}
    variances: dict[str, list[float]] = {n: [] for n in activations}

    def observe(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if activations[name].mode is not Mode.SPIKING:
                ann[name] = output
                return
            gap = ann.pop(name) - output.reshape(num_steps, -1, *output.shape[1:]).mean(0)
            variances[name].append(float(gap.var(unbiased=False)))

        return hook

    handles = [m.register_forward_hook(observe(n)) for n, m in activations.items()]
    quantized, spiking = [], []
    try:
        with in_evaluation(model):
            for batch in batches(x):
                quantized.append(model(batch))
                with activation_mode(model, Mode.SPIKING, num_steps):
                    steps = model(batch.repeat(num_steps, *([1] * (batch.ndim - 1))))
                spiking.append(steps.reshape(num_steps, len(batch), -1).sum(0))
    finally:
        for handle in handles:
            handle.remove()
    return SpikingComparison(
        torch.cat(quantized),
        torch.cat(spiking),
        {n: (sum(v) / len(v)) ** 0.5 for n, v in variances.items()},
    )


def set_sigma(model: nn.Module, residual_std: dict[str, float]) -> dict[str, float]:
    """Set `sigma` of every NQ activation; returns what was set, by qualified path."""
    changed = {}
    for name, module in model.named_modules():
        if isinstance(module, NQ):
            module.sigma.fill_(residual_std[name])
            changed[name] = module.sigma.item()
    return changed


def set_fixed_sigma(model: nn.Module, intensity: float) -> dict[str, float]:
    """Set `sigma` of every NQ activation to `intensity` times its present threshold."""
    thresholds = {n: m.threshold.item() for n, m in model.named_modules() if isinstance(m, NQ)}
    return set_sigma(model, {n: intensity * lam for n, lam in thresholds.items()})
