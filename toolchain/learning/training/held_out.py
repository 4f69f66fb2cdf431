"""What is measured on the held-out split after each epoch: accuracies, and NQ's noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from toolchain.int_range import TargetLimits
from toolchain.learning.activations import IF_ACTIVATIONS, NQ, ActivationMode
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import accuracy, logits
from toolchain.learning.training.integer_noise import compare_with_integer
from toolchain.learning.training.noise import (
    SpikingComparison,
    compare_with_spiking,
    set_fixed_sigma,
    set_sigma,
)
from toolchain.program.input_quantizer import InputQuantizer


@dataclass(frozen=True)
class IntegerForm:
    """What the integer network is converted with."""

    quantizer: InputQuantizer
    limits: TargetLimits


def measure_held_out(
    config: TrainConfig,
    model: nn.Module,
    x: Tensor,
    labels: np.ndarray,
    noise_x: Tensor,
    epochs_done: int,
    integer_form: IntegerForm | None,
) -> dict[str, float]:
    """Accuracies on held-out samples, and "selection", by which the best epoch is chosen.

    NQ's sigma is set for the next epoch where `config` says so; each layer's is in the result as
    "sigma/LAYER", its measured residual error as "residual_std/LAYER"; both come from `noise_x`,
    the same samples as `x`, or changed ones. With `integer_form` the spiking network is the
    converted one.
    """
    part = slice(0, config.calibration_samples)
    if config.activation not in IF_ACTIVATIONS:
        quantized = accuracy(logits(model, x, ActivationMode.QUANTIZED), labels)
        return {"held_out_quantized": quantized, "selection": quantized}
    compared = _compare(config, model, x[part], integer_form)
    whole = compared.quantized if len(compared.quantized) == len(x) else None
    quantized = accuracy(
        logits(model, x, ActivationMode.QUANTIZED) if whole is None else whole, labels
    )
    spiking = accuracy(compared.spiking, labels[part])
    if noise_x is not x:
        compared = _compare(config, model, noise_x[part], integer_form)
    metrics = {
        "held_out_quantized": quantized,
        "held_out_spiking": spiking,
        "selection": spiking,
    }
    metrics |= {f"residual_std/{n}": v for n, v in compared.residual_std.items()}
    if config.activation == "nq":
        sigmas = _update_sigma(config, model, compared.residual_std, epochs_done)
        metrics |= {f"sigma/{n}": v for n, v in sigmas.items()}
    return metrics


def _compare(
    config: TrainConfig, model: nn.Module, x: Tensor, integer_form: IntegerForm | None
) -> SpikingComparison:
    if integer_form is None:
        return compare_with_spiking(model, x, config.calibration_steps)
    quantizer, limits = integer_form.quantizer, integer_form.limits
    return compare_with_integer(model, x, config.calibration_steps, quantizer, limits)


def _update_sigma(
    config: TrainConfig, model: nn.Module, residual_std: dict[str, float], epochs_done: int
) -> dict[str, float]:
    """Set sigma for the next epoch; returns what is in force by layer."""
    since_start = epochs_done - config.noise_start
    if config.fixed_noise is not None:
        return set_fixed_sigma(model, config.fixed_noise)
    if since_start >= 0 and since_start % config.noise_every == 0:
        return set_sigma(model, residual_std)
    return {n: m.sigma.item() for n, m in model.named_modules() if isinstance(m, NQ)}
