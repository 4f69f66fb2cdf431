"""What is measured on the held-out split after each epoch: accuracies, and NQ's noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from toolchain.activations import IF_ACTIVATIONS, NQ, Mode
from toolchain.int_range import TargetLimits
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.training.config import TrainConfig
from toolchain.training.evaluate import accuracy, logits
from toolchain.training.integer_noise import compare_with_integer
from toolchain.training.noise import compare_with_spiking, set_fixed_sigma, set_sigma


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
    epochs_done: int,
    integer_form: IntegerForm | None,
) -> dict[str, float]:
    """Accuracies on held-out samples, and "selection", by which the best epoch is chosen.

    NQ's sigma is set for the next epoch where `config` says so; each layer's is in the result as
    "sigma/LAYER", its measured residual error as "residual_std/LAYER". With `integer_form` the
    spiking network is the converted one.
    """
    quantized = accuracy(logits(model, x, Mode.QUANTIZED), labels)
    if config.activation not in IF_ACTIVATIONS:
        return {"held_out_quantized": quantized, "selection": quantized}
    steps, part = config.calibration_steps, slice(0, config.calibration_samples)
    if integer_form is None:
        compared = compare_with_spiking(model, x[part], steps)
    else:
        quantizer, limits = integer_form.quantizer, integer_form.limits
        compared = compare_with_integer(model, x[part], steps, quantizer, limits)
    spiking = accuracy(compared.spiking, labels[part])
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
