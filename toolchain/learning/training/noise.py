"""The residual error of the spiking network against the quantized one, and NQ's noise from it.

On the held-out split, each layer on its own propagated input:
`gap = a_ann - (lam / T) * sum_t s_t`; per batch the variance over all elements;
`sigma = sqrt(mean over batches)`. Source: official NQ code (Huang et al., IEEE TNNLS 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import in_evaluation
from toolchain.learning.activations import NQ, ActivationMode, QuantizedActivation, activation_mode
from toolchain.learning.activations.fused import run_elementwise, working
from toolchain.learning.training.inference import at_each_step, side_by_side


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


Spiking = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]
"""Runs a spiking network on a batch (n, ...): the mean output of each activation over the steps, by
qualified path, in real units, (n, ...), and the logits summed over the steps, (n, K)."""


@contextmanager
def observed_outputs(model: nn.Module, num_steps: int = 1) -> Iterator[dict[str, Tensor]]:
    """The last output of every quantized activation, (n, ...), by qualified path.

    With time folded into the batch axis, (num_steps * n, ...), its mean over the steps.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = run_elementwise(_mean, *output.chunk(num_steps))

        return hook

    handles = [
        m.register_forward_hook(keep(n))
        for n, m in model.named_modules()
        if isinstance(m, QuantizedActivation)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _mean(first: Tensor, *rest: Tensor) -> Tensor:
    return sum((working(other) for other in rest), working(first)) / (1 + len(rest))


@torch.no_grad()
def compare_outputs(
    model: nn.Module, samples: Iterable[Tensor], spiking: Spiking, *, per_step: bool = False
) -> SpikingComparison:
    """Run the quantized network and `spiking` on batches of normalised samples, (n, ...) each.

    Of sequences (n, T, ...), with `per_step`, the quantized network gets the mean over the steps.
    """
    variances: dict[str, list[float]] = {}
    logits: tuple[list[Tensor], list[Tensor]] = ([], [])
    with in_evaluation(model):
        for batch in samples:
            with observed_outputs(model) as ann:
                logits[0].append(side_by_side(model(batch.mean(1) if per_step else batch)))
            rates, summed = spiking(batch)
            logits[1].append(summed)
            for name, output in ann.items():
                gap = output - rates[name]
                variances.setdefault(name, []).append(float(gap.var(unbiased=False)))
    return SpikingComparison(
        torch.cat(logits[0]),
        torch.cat(logits[1]),
        {n: (sum(v) / len(v)) ** 0.5 for n, v in variances.items()},
    )


def compare_with_spiking(
    model: nn.Module, samples: Iterable[Tensor], num_steps: int, *, per_step: bool = False
) -> SpikingComparison:
    """Compare `model` with its float spiking network over `num_steps` steps.

    Parameters
    ----------
    samples:
        Batches of normalised samples, (n, ...) each; with `per_step` sequences (n, T, ...).
    """
    return compare_outputs(
        model,
        samples,
        lambda batch: run_spiking(model, batch, num_steps, per_step=per_step),
        per_step=per_step,
    )


def run_spiking(
    model: nn.Module, batch: Tensor, num_steps: int, *, per_step: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """Run `model` with float IF neurons; returns as `Spiking`.

    Raises
    ------
    DataError
        If `per_step`, and sequences do not have `num_steps` steps.
    """
    repeated = at_each_step(batch, num_steps, per_step=per_step)
    mode = activation_mode(model, ActivationMode.SPIKING, num_steps)
    with mode, observed_outputs(model, num_steps) as rates:
        steps = side_by_side(model(repeated))
    return rates, steps.reshape(num_steps, len(batch), -1).sum(0)


def set_sigma(model: nn.Module, residual_std: dict[str, float]) -> dict[str, float]:
    """Set `sigma` of every NQ activation that ran; returns what was set, by qualified path."""
    changed = {}
    for name, module in model.named_modules():
        if isinstance(module, NQ) and name in residual_std:
            module.sigma.fill_(residual_std[name])
            changed[name] = module.sigma.item()
    return changed


def set_fixed_sigma(model: nn.Module, intensity: float) -> dict[str, float]:
    """Set `sigma` of every NQ activation to `intensity` times its present threshold."""
    thresholds = {n: m.threshold.item() for n, m in model.named_modules() if isinstance(m, NQ)}
    return set_sigma(model, {n: intensity * lam for n, lam in thresholds.items()})
