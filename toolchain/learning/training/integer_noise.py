"""NQ's residual error measured on the converted network, in integers, instead of in float.

The network is converted as it is at that moment, with 8-bit weights and all ranges proved, and
runs on the reference simulator; so the noise also stands for what rounding the weights costs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.conversion.passes.layers import IntegerLayer, layers_of
from toolchain.conversion.pipeline import ConversionOptions, lower, prepare
from toolchain.engine.engine import Detail, Engine
from toolchain.int_range import TargetLimits
from toolchain.learning.activations import QuantizedActivation
from toolchain.learning.training.inference import batches
from toolchain.learning.training.noise import SpikingComparison, compare_outputs
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.program.neurons import Readout

WEIGHT_BITS = 8


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
        Normalised samples, (N, ...), on the grid of `quantizer`; sequences if it is per step.

    Raises
    ------
    SpikeportError
        If the network cannot be converted.
    """
    options = ConversionOptions("if", Schedule(num_steps), WEIGHT_BITS)
    device = x.device
    prepared = prepare(model.cpu(), quantizer, options, limits)
    program = lower(prepared, name="training").program
    model.to(device)
    thresholds = {
        n: m.threshold for n, m in model.named_modules() if isinstance(m, QuantizedActivation)
    }
    populations = {
        layer.activation.name: layer.name
        for layer in layers_of(prepared.folded)
        if isinstance(layer, IntegerLayer) and layer.activation is not None
    }

    def spiking(batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        counts, logits = _run(program, batch)
        rates = {
            name: counts[populations[name]].to(device) * lam / num_steps
            for name, lam in thresholds.items()
        }
        return rates, logits.to(device)

    return compare_outputs(model, batches(x), spiking, per_step=quantizer.per_step)


def _run(program: IntProgram, batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spike counts by population, and logits in real units summed over the steps."""
    quantizer = program.input
    units = np.rint(batch.cpu().double().numpy() / quantizer.scale).astype(np.int64)
    quantizer.range.check("input", units)
    counts: dict[str, list[np.ndarray]] = {p.name: [] for p in program.spiking}
    logits = []
    for _, blocks in Engine(program).passes(units, Detail.SPIKES):
        summed: dict[str, np.ndarray] = {}
        for block in blocks:
            for name, spikes in block.spikes.items():
                summed[name] = summed.get(name, 0) + spikes.sum(axis=0, dtype=np.int64)
            last = block.readout[-1]
        for name, of_pass in summed.items():
            counts[name].append(of_pass)
        logits.append(last)
    readout = program.readout.neuron
    if not isinstance(readout, Readout):
        raise TypeError(type(readout))
    total = torch.from_numpy(np.concatenate(logits)) * readout.scale
    return {n: torch.from_numpy(np.concatenate(c)) for n, c in counts.items()}, total.float()
