"""Thresholds of plain ReLUs that a single spike can reach with an integer weight.

A threshold is at least one unit, and a weight at most 127 (with 8 bits): a spike that is worth more
than 127 thresholds has no weight. A trained threshold is what it is, and this ends the conversion;
the threshold of a plain ReLU is chosen, so it is raised for such channels. They hardly fire on the
calibration data, or their large weights cancel there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.conversion.passes.layers import AnyLayer, IntegerLayer, layers_of
from toolchain.conversion.quantization.integerise import float_rows
from toolchain.conversion.quantization.row_blocks import magnitudes
from toolchain.conversion.quantization.spike_values import spikes_of
from toolchain.int_range import IntRange, TargetLimits
from toolchain.program.float_program import Activation, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer

SPARE = 1 + 1e-9
"""Against rounding in the comparison of a weight with its limit."""


def with_reachable_thresholds(
    program: FloatProgram, quantizer: InputQuantizer, weight_bits: int, limits: TargetLimits
) -> tuple[FloatProgram, tuple[str, ...]]:
    """A folded program whose measured thresholds all weights and biases fit, and notes.

    A threshold is raised to at most the ReLU's own bound.
    """
    largest = IntRange.signed(weight_bits).high
    layers: list[AnyLayer] = []
    raised: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for layer in layers_of(program):
        layers.append(layer)
        activation = layer.activation if isinstance(layer, IntegerLayer) else None
        if not isinstance(layer, IntegerLayer) or activation is None or activation.bound is None:
            continue
        rows = float_rows(layer, spikes_of(layers[:-1], quantizer), np.ones(1))
        least = np.abs(rows.bias) / limits.bias_max
        for branch in rows.branches:
            least = np.maximum(least, magnitudes(branch.rows) / largest)
        least = least * activation.max_spike
        lam = np.broadcast_to(activation.threshold, least.shape)
        threshold = np.minimum(np.maximum(lam, least * SPARE), activation.bound)
        count = int((threshold > lam).sum())
        if count:
            raised[activation.name] = threshold
            layers[-1] = replace(layer, activation=replace(activation, threshold=threshold))
            notes.append(
                f"{layer.name}: thresholds of {count} of {len(lam)} channels were raised, since a "
                "single spike was worth more of them than a weight can hold"
            )
    nodes = (
        replace(n, threshold=raised[n.name])
        if isinstance(n, Activation) and n.name in raised
        else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(nodes)), tuple(notes)
