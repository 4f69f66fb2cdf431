"""NQ's residual error measured on the converted network, in integers, instead of in float.

The network is converted as it is at that moment, with 8-bit weights and all ranges proved, and
runs on the reference simulator; so the noise also stands for what rounding the weights costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.activations import QuantizedActivation
from toolchain.conversion.layers import Layer, layers_of
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.int_range import TargetLimits
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.simulator.reference import run_steps
from toolchain.training.evaluate import batches, in_evaluation
from toolchain.training.noise import SpikingComparison

WEIGHT_BITS = 8


@torch.no_grad()
def compare_with_integer(
    model: nn.Module,
    x: Tensor,
    num_steps: int,
    quantizer: InputQuantizer,
    limits: TargetLimits,
) -> SpikingComparison:
    """As `noise.compare_with_spiking`, with the integer network in place of the float one.

    Parameters
    ----------
    x:
        Normalised samples, (N, ...), on the grid of `quantizer`.

    Raises
    ------
    SpikeportError
        If the network cannot be converted.
    """
    options = ConversionOptions("if", Schedule(num_steps), WEIGHT_BITS)
    device = next(model.parameters()).device
    conversion = convert(model.cpu(), quantizer, options, limits, name="training")
    model.to(device)
    program = conversion.program
    populations = {
        layer.activation.name: layer.name
        for layer in layers_of(conversion.float_program)
        if isinstance(layer, Layer) and layer.activation is not None
    }
    activations = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedActivation)}
    ann: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            ann[name] = output / activations[name].threshold

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in activations.items()]
    variances: dict[str, list[float]] = {n: [] for n in activations}
    quantized, spiking = [], []
    try:
        with in_evaluation(model):
            for batch in batches(x):
                quantized.append(model(batch))
                counts, logits = _run(program, batch)
                spiking.append(logits.to(device))
                for name, activation in activations.items():
                    rate = counts[populations[name]].to(device) / num_steps
                    gap = (ann[name] - rate) * activation.threshold
                    variances[name].append(float(gap.var(unbiased=False)))
    finally:
        for handle in handles:
            handle.remove()
    return SpikingComparison(
        torch.cat(quantized),
        torch.cat(spiking),
        {n: (sum(v) / len(v)) ** 0.5 for n, v in variances.items()},
    )


def _run(program: IntProgram, batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spike counts by population, and logits in real units summed over the steps."""
    quantizer = program.input
    units = np.rint(batch.cpu().double().numpy() / quantizer.scale).astype(np.int64)
    quantizer.range.check("input", units)
    counts: dict[str, Tensor] = {}
    logits = torch.zeros(1)
    for step in run_steps(program, units):
        for name, spikes in step.spikes.items():
            counts[name] = counts[name] + spikes if name in counts else spikes
        logits = step.membrane[program.readout.name]
    readout = program.readout.neuron
    scale = getattr(readout, "scale", 1.0)
    return counts, (logits * scale).float()
