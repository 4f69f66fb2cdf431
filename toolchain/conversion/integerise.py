"""Threshold-exact integerisation: float layers with their activations become populations.

For an output channel with float threshold `lam`, input spike value `lam_in` and integer
threshold `theta`:

    W_int = round(theta * W * lam_in / lam),  b_int = round(theta * b / lam),
    v0 = floor(theta * shift)

Theta is free, so it carries the channel's scale: it is the largest integer for which the weights
fit their bits. The threshold itself then has no rounding error; all error is in W and b. A
readout has one common scale for all channels instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.int_range import IntRange, TargetLimits
from toolchain.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, Readout
from toolchain.program.float_program import (
    Activation,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Input,
    Linear,
)
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import INPUT, IntProgram, Population, Schedule
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse

ROUNDING = 2.0**-40
"""Relative slack for float64 rounding, so that a network that is exact in integers stays so; far
below the half unit that rounding a weight forgives."""
SPIKING_NEURONS: dict[str, type[IntegrateAndFire] | type[ConsistentIntegrateAndFire]] = {
    "if": IntegrateAndFire,
    "cif": ConsistentIntegrateAndFire,
}


@dataclass(frozen=True)
class LayerRounding:
    """What integerisation did to one layer.

    Attributes
    ----------
    weight_error, bias_error:
        Largest rounding error, relative to the largest weight of the layer, and in thresholds.
    threshold_low, threshold_high:
        Range of the integer thresholds (0 for a readout).
    zeroed:
        Weights that were not zero and became zero by rounding.
    lowered:
        Channels whose threshold (readout: scale) was lowered to make every range provable.
    """

    name: str
    weight_error: float
    bias_error: float
    threshold_low: int
    threshold_high: int
    zeroed: int
    weights: int
    lowered: int


@dataclass(frozen=True, eq=False)
class _Layer:
    """A convolution or dense layer, where its spikes come from, and its activation if any."""

    operation: Conv2d | Linear
    source: str
    source_shape: tuple[int, ...]
    activation: Activation | None


def layers_of(program: FloatProgram) -> list[_Layer]:
    """Group a folded program into layers of operation and activation.

    Raises
    ------
    UnsupportedModuleError
        If a layer has no activation before the next one, an activation follows no layer, or the
        network ends in an activation.
    """
    shapes = program.shapes()
    layers: list[_Layer] = []
    spiking: dict[str, str] = {program.input.name: INPUT}
    for node in program.nodes:
        if isinstance(node, Input | Flatten):
            if isinstance(node, Flatten) and node.source in spiking:
                spiking[node.name] = spiking[node.source]
            continue
        if isinstance(node, Activation):
            before = program.node(node.source)
            if not isinstance(before, Conv2d | Linear):
                raise UnsupportedModuleError(
                    "an activation must follow a convolution or dense layer",
                    node=node.name,
                    found=f"{before.name} ({type(before).__name__})",
                )
            spiking[node.name] = before.name
            continue
        if not isinstance(node, Conv2d | Linear):
            raise UnsupportedModuleError(
                "no lowering for this node", node=node.name, found=type(node).__name__
            )
        if node.source not in spiking:
            raise UnsupportedModuleError(
                "two layers follow each other without an activation",
                node=node.name,
                found=f"behind {node.source}",
                remedy="put a quantized activation between them, or merge them into one layer",
            )
        layers.append(_layer(program, node, spiking[node.source], shapes))
    return layers


def _layer(
    program: FloatProgram,
    node: Conv2d | Linear,
    source: str,
    shapes: dict[str, tuple[int, ...]],
) -> _Layer:
    consumers: tuple[FloatNode, ...] = program.consumers(node.name)
    while len(consumers) == 1 and isinstance(consumers[0], Flatten):
        consumers = program.consumers(consumers[0].name)
    activation = consumers[0] if consumers and isinstance(consumers[0], Activation) else None
    if consumers and (activation is None or len(consumers) > 1):
        raise UnsupportedModuleError(
            "a layer must be followed by exactly one quantized activation",
            node=node.name,
            found=", ".join(f"{c.name} ({type(c).__name__})" for c in consumers),
            remedy="put a quantized activation between it and the next layer",
        )
    if activation is None and isinstance(node, Conv2d):
        raise UnsupportedModuleError(
            "the network must end in a dense layer",
            node=node.name,
            found="a convolution without activation at the end",
        )
    if activation is not None and activation.name == program.nodes[-1].name:
        raise UnsupportedModuleError(
            "the network ends in an activation",
            node=activation.name,
            remedy="end in a dense layer, whose sums are the logits",
        )
    return _Layer(node, source, shapes[node.source], activation)


def integerise(
    program: FloatProgram,
    quantizer: InputQuantizer,
    *,
    name: str,
    neuron: str,
    schedule: Schedule,
    weight_bits: int,
    limits: TargetLimits,
    room: Mapping[str, np.ndarray] | None = None,
) -> tuple[IntProgram, list[LayerRounding]]:
    """Lower a folded float program; the range analysis comes after.

    `room` lowers thresholds: a factor in (0, 1] a channel, by layer (see `fit_ranges`).

    Raises
    ------
    ConversionError, UnsupportedModuleError
        Naming the layer.
    """
    populations: list[Population] = []
    report: list[LayerRounding] = []
    spike_values: dict[str, np.ndarray] = {INPUT: np.array([quantizer.scale])}
    for layer in layers_of(program):
        share = (room or {}).get(layer.operation.name, np.ones(1))
        population, rounding = _population(layer, spike_values, neuron, weight_bits, limits, share)
        populations.append(population)
        report.append(rounding)
        if layer.activation is not None:
            spike_values[population.name] = layer.activation.threshold
    result = IntProgram(
        name=name,
        input=quantizer,
        populations=tuple(populations),
        schedule=schedule,
        weight_bits=weight_bits,
        state_bits=limits.state_bits,
    )
    return result, report


def _population(
    layer: _Layer,
    spike_values: dict[str, np.ndarray],
    neuron: str,
    weight_bits: int,
    limits: TargetLimits,
    room: np.ndarray,
) -> tuple[Population, LayerRounding]:
    operation = layer.operation
    weight = operation.weight * _input_scale(layer, spike_values[layer.source])
    rows = weight.reshape(len(weight), -1)
    channels = len(rows)
    largest = IntRange.signed(weight_bits).high
    peak = np.abs(rows).max(axis=1)
    if layer.activation is None:
        worst_bias = np.abs(operation.bias).max()
        scale = float(max(peak.max() / largest, worst_bias / limits.bias_max) / room.min())
        if not peak.any():
            raise ConversionError(
                "all weights of the readout are zero", node=operation.name, allowed="some signal"
            )
        factor = np.full(channels, 1.0 / scale)
        theta = np.zeros(channels, np.int64)
        cell: Readout | IntegrateAndFire | ConsistentIntegrateAndFire = Readout(scale)
        shape: tuple[int, ...] = (channels,)
    else:
        lam = np.broadcast_to(layer.activation.threshold, (channels,))
        theta = _thresholds(operation.name, peak / lam, operation.bias / lam, largest, limits)
        theta = np.maximum(np.floor(theta * room), 1).astype(np.int64)
        factor = theta / lam
        shift = np.floor(theta * layer.activation.shift).astype(np.int64)
        cell = SPIKING_NEURONS[neuron](theta, shift)
        shape = (channels,)
    rounded = np.rint(rows * factor[:, None])
    bias = np.rint(operation.bias * factor)
    synapse = _synapse(layer, rounded.reshape(weight.shape))
    if isinstance(operation, Conv2d):
        shape = synapse.output_shape(layer.source_shape)
    population = Population(operation.name, shape, (synapse,), _int32(operation.name, bias), cell)
    rounding = LayerRounding(
        operation.name,
        float(np.abs(rounded / factor[:, None] - rows).max() / (peak.max() or 1.0)),
        float(np.abs(bias / factor - operation.bias).max()),
        int(theta.min()),
        int(theta.max()),
        int(((rounded == 0) & (rows != 0)).sum()),
        int(rows.size),
        int((room < 1).sum()) if layer.activation is not None else int((room < 1).any()),
    )
    return population, rounding


def _input_scale(layer: _Layer, values: np.ndarray) -> np.ndarray | float:
    """`lam_in` arranged to multiply the layer's weights along their input axis."""
    if values.size == 1:
        return float(values[0])
    if isinstance(layer.operation, Linear):
        return np.repeat(values, layer.operation.weight.shape[1] // len(values))[None, :]
    if layer.operation.groups == 1:
        return values[None, :, None, None]
    per_group = values.reshape(layer.operation.groups, -1)
    group = np.arange(len(layer.operation.weight)) // (
        len(layer.operation.weight) // layer.operation.groups
    )
    return per_group[group][:, :, None, None]


def _thresholds(
    name: str, weight: np.ndarray, bias: np.ndarray, largest: int, limits: TargetLimits
) -> np.ndarray:
    """The largest integer theta a channel for which weights, bias and theta fit.

    `weight` and `bias` are each channel's largest weight and its bias, in thresholds.
    """
    with np.errstate(divide="ignore"):
        widest = np.minimum(largest / np.abs(weight), limits.bias_max / np.abs(bias))
    theta = np.floor(np.minimum(float(limits.threshold_max), widest * (1.0 + ROUNDING)))
    if (theta < 1).any():
        channel = int(np.argmin(theta))
        raise ConversionError(
            "a single spike is worth more thresholds than a weight can hold",
            node=name,
            found=f"{weight[channel]:.4g} thresholds in channel {channel}",
            allowed=f"at most {largest}",
            remedy="train with a larger threshold or weight decay",
        )
    return theta.astype(np.int64)


def _synapse(layer: _Layer, weight: np.ndarray) -> Synapse:
    operation = layer.operation
    if isinstance(operation, Linear):
        return DenseSynapse(layer.source, weight.astype(np.int64))
    return ConvSynapse(
        layer.source,
        weight.astype(np.int64),
        operation.stride,
        operation.padding,
        operation.dilation,
        operation.groups,
    )


def _int32(name: str, values: np.ndarray) -> np.ndarray:
    if (np.abs(values) > np.iinfo(np.int32).max).any():
        raise ConversionError(
            "a bias does not fit 32 bits beside weights this small",
            node=name,
            found=float(np.abs(values).max()),
            remedy="check the layer's weights: they are tiny against its bias",
        )
    return values.astype(np.int64)
