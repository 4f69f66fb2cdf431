"""Threshold-exact integerisation: float layers with their activations become populations.

For an output channel with float threshold `lam` (of graded IF neurons, over their largest spike),
input spike value `lam_in` and integer threshold `theta`:

    W_int = round(theta * W * lam_in / lam / 2^exponent),  b_int = round(theta * b / lam),
    v0 = floor(theta * shift)

Theta is free, so it carries the channel's scale (see `thresholds` and `integer_choice`). The
threshold itself then has no rounding error; all error is in W and b. A readout has one common scale
for all channels instead. The value of a spike is computed in `spike_values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from toolchain.canonical import handed_over
from toolchain.conversion.passes.layers import (
    IntegerLayer,
    MaxPoolLayer,
    SumLayer,
    Term,
    layers_of,
)
from toolchain.conversion.quantization.population_rows import (
    Branch,
    FloatRows,
    IntegerBranch,
    IntegerRows,
)
from toolchain.conversion.quantization.row_blocks import Rows, ScaledRows, of_blocks
from toolchain.conversion.quantization.spike_values import Spikes, spike_value, spikes_of
from toolchain.conversion.quantization.thresholds import (
    ChooseIntegers,
    choose_integers,
    negligible_channels,
)
from toolchain.errors import ConversionError
from toolchain.int_range import TargetLimits
from toolchain.program.float_program import Conv2d, FloatProgram, Linear
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Neuron,
    Readout,
    Relay,
)
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse

SPIKING_NEURONS: dict[str, type[IntegrateAndFire] | type[ConsistentIntegrateAndFire]] = {
    "if": IntegrateAndFire,
    "cif": ConsistentIntegrateAndFire,
}


@dataclass(frozen=True)
class BranchRounding:
    """The integerisation of one branch of a layer.

    Attributes
    ----------
    source:
        Source population, or "input".
    exponents:
        Weight exponent of its synapse; two if it was split into high and low bits because one
        synapse would have been too coarse.
    weight_error:
        Largest rounding error, relative to the branch's largest weight.
    negligible:
        Whether it can never add a notable part of a threshold; then its error is ignored.
    vanished, vanished_worth:
        Channels of an identity in which its weight became 0, and the most thresholds that one of
        its spikes would add there.
    """

    source: str
    exponents: tuple[int, ...]
    weight_error: float
    negligible: bool
    vanished: int = 0
    vanished_worth: float = 0.0


@dataclass(frozen=True)
class LayerRounding:
    """The integerisation of one layer.

    Attributes
    ----------
    weight_error, bias_error:
        Largest rounding error of a weight, relative to the largest weight of its branch (of the
        worst branch), and of the bias, in units of the sums.
    threshold_low, threshold_high:
        Range of the integer thresholds (0 for a readout).
    zeroed:
        Number of nonzero weights that became zero by rounding.
    lowered:
        Number of channels whose threshold (readout: scale) was lowered to make every range
        provable.
    branches:
        One per linear term, in the order of the sum.
    sqnr_db:
        Signal-to-quantization-noise ratio of the weights in thresholds (readout: logits), in
        decibels: 10 log10 of the sum of squares over that of the rounding errors. None without any
        error.
    clipped:
        Number of integers (weights and biases) at the end of their range because their target is
        beyond it.
    notes:
        Notes on the choice of integers.
    saturated:
        Share of pre-activations at or above the threshold on the calibration data; None without
        calibration.
    """

    name: str
    weight_error: float
    bias_error: float
    threshold_low: int
    threshold_high: int
    zeroed: int
    weights: int
    lowered: int
    branches: tuple[BranchRounding, ...]
    sqnr_db: float | None = None
    clipped: int = 0
    notes: tuple[str, ...] = ()
    saturated: float | None = None


@dataclass(frozen=True, eq=False)
class Integerised:
    """One layer in integers, the factors on its thresholds, and its rounding errors."""

    room: np.ndarray
    population: Population
    rounding: LayerRounding


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
    choose: ChooseIntegers = choose_integers,
    kept: dict[str, Integerised] | None = None,
) -> tuple[IntProgram, list[LayerRounding]]:
    """Lower a folded float program to integers, without the range analysis.

    `room` lowers thresholds: a factor in (0, 1] per channel, by layer (see `fit_ranges`). `choose`
    selects thresholds and integer weights of one population. `kept` holds what earlier calls made
    with the same other arguments: layers whose room has not changed are taken from there.

    Raises
    ------
    ConversionError, UnsupportedModuleError
        If a layer cannot be integerised. The error names it.
    """
    kept = {} if kept is None else kept
    populations: list[Population] = []
    report: list[LayerRounding] = []
    layers = layers_of(program)
    spikes = spikes_of(layers, quantizer)
    for layer in layers:
        if isinstance(layer, MaxPoolLayer):
            population = _max_pool(layer)
        elif isinstance(layer, SumLayer):
            population = _sum(layer)
        else:
            own = (room or {}).get(layer.name, np.ones(1))
            made = kept.pop(layer.name, None)
            if made is None or not np.array_equal(made.room, own):
                del made  # frees its weights
                rows = float_rows(layer, spikes, own)
                chosen = choose(rows, weight_bits, limits)
                population = _population(layer, chosen, neuron)
                made = Integerised(own, population, _rounding(layer, rows, chosen))
            kept[layer.name], population = made, made.population
            report.append(made.rounding)
        populations.append(population)
    result = IntProgram(
        name=name,
        input=quantizer,
        populations=tuple(populations),
        schedule=schedule,
        weight_bits=weight_bits,
        state_bits=limits.state_bits,
    )
    return result, report


def _max_pool(layer: MaxPoolLayer) -> Population:
    pool = layer.pool
    windows = WindowSynapse(
        layer.source, pool.kernel, pool.stride, pool.padding, pool.dilation, pool.overhang
    )
    none = np.zeros(layer.shape[0], np.int64)
    return Population(layer.name, layer.shape, (windows,), none, LIPool())


def _sum(layer: SumLayer) -> Population:
    """The relays of a sum; its terms have whole numbers as weights."""
    synapses: list[Synapse] = []
    for term in layer.terms:
        operation, weight = term.operation, term.operation.weight.astype(np.int64)
        if isinstance(operation, Linear):
            synapses.append(DenseSynapse(term.source, weight))
        else:
            synapses.append(_convolution(term.source, operation, weight))
    none = np.zeros(layer.shape[0], np.int64)
    return Population(layer.name, layer.shape, tuple(synapses), none, Relay())


def float_rows(layer: IntegerLayer, spikes: Mapping[str, Spikes], room: np.ndarray) -> FloatRows:
    """The weights of a layer, each times the value of a spike of its source, and its bias."""
    branches = []
    for term in layer.terms:
        source = spikes[term.source]
        weight = term.operation.weight
        rows = ScaledRows(
            weight.reshape(len(weight), -1), np.multiply, _input_scale(term, source.value)
        )
        branches.append(
            Branch(
                term.operation.name,
                rows,
                source.largest,
                term.identity,
                source.taps,
                source.constant,
            )
        )
    lam = None
    if layer.activation is not None:
        lam = np.broadcast_to(spike_value(layer.activation), (layer.shape[0],))
    return FloatRows(layer.name, tuple(branches), layer.bias, lam, room)


def _input_scale(term: Term, values: np.ndarray) -> np.ndarray | float:
    """`lam_in` of each weight of the term's rows: one value, (n,) or (C, n)."""
    operation = term.operation
    if values.size == 1:
        return float(values[0])
    if isinstance(operation, Linear):
        return np.repeat(values, operation.weight.shape[1] // len(values))
    per_group = values.reshape(operation.groups, -1).repeat(prod(operation.kernel), axis=1)
    return per_group.repeat(len(operation.weight) // operation.groups, axis=0)


def _population(layer: IntegerLayer, chosen: IntegerRows, neuron: str) -> Population:
    cell: Neuron
    if layer.activation is None:
        if chosen.scale is None:
            raise TypeError("a readout needs a scale")
        cell = Readout(chosen.scale)
    else:
        start = np.floor(chosen.theta * layer.activation.shift).astype(np.int64)
        most = layer.activation.max_spike
        cell = (
            GradedIntegrateAndFire(chosen.theta, start, most)
            if most > 1
            else SPIKING_NEURONS[neuron](chosen.theta, start)
        )
    synapses = [
        synapse
        for term, branch in zip(layer.terms, chosen.branches, strict=True)
        for synapse in _synapses(term, branch)
    ]
    bias = _int32(layer.name, chosen.bias)
    return Population(layer.name, layer.shape, tuple(synapses), bias, cell)


def _synapses(term: Term, branch: IntegerBranch) -> list[Synapse]:
    operation = term.operation
    if isinstance(operation, Linear):
        return [DenseSynapse(term.source, handed_over(weight), exp) for exp, weight in branch.parts]
    shape = operation.weight.shape
    return [
        _convolution(term.source, operation, weight.reshape(shape), exponent)
        for exponent, weight in branch.parts
    ]


def _convolution(source: str, of: Conv2d, weight: np.ndarray, exponent: int = 0) -> ConvSynapse:
    """A convolution with these weights and the geometry of another."""
    return ConvSynapse(
        source,
        weight,
        of.stride,
        of.padding,
        of.dilation,
        of.groups,
        exponent,
        of.upsample,
        of.overhang,
    )


def _rounding(layer: IntegerLayer, rows: FloatRows, chosen: IntegerRows) -> LayerRounding:
    branches, zeroed, signal, noise = [], 0, 0.0, 0.0
    lam = (np.ones(len(rows.bias)) if rows.lam is None else rows.lam)[:, None]
    for term, branch, integers in zip(layer.terms, rows.branches, chosen.branches, strict=True):
        work = partial(_losses_of_rows, branch.rows, integers, chosen.factor[:, None], lam)
        errors, peaks, zeros, signals, noises = zip(
            *of_blocks(work, *branch.rows.shape), strict=True
        )
        zeroed, signal, noise = zeroed + sum(zeros), signal + sum(signals), noise + sum(noises)
        error, peak = max(errors), max(peaks)
        exponents = tuple(exponent for exponent, _ in integers.parts)
        ignored = len(rows.branches) > 1 and bool(negligible_channels(branch, rows.lam).all())
        relative = error / (peak or 1.0)
        gone = _vanished(branch, integers, lam) if branch.identity else np.zeros(0)
        branches.append(
            BranchRounding(
                term.source, exponents, relative, ignored, len(gone), float(gone.max(initial=0.0))
            )
        )
    lowered = rows.room < 1
    return LayerRounding(
        layer.name,
        max((b.weight_error for b in branches if not b.negligible), default=0.0),
        float(np.abs(chosen.bias / chosen.factor - rows.bias).max()),
        int(chosen.theta.min()),
        int(chosen.theta.max()),
        zeroed,
        sum(prod(b.rows.shape) for b in rows.branches),
        int(lowered.any()) if rows.lam is None else int(lowered.sum()),
        tuple(branches),
        float(10.0 * np.log10(signal / noise)) if signal and noise else None,
        chosen.clipped,
        chosen.notes,
    )


def _vanished(branch: Branch, integers: IntegerBranch, lam: np.ndarray) -> np.ndarray:
    """Thresholds per spike of the weights of an identity that became 0, (n,)."""
    exact = branch.rows[:]
    gone = (integers.total == 0) & (exact != 0)
    return np.asarray((np.abs(exact) / lam)[gone])


def _losses_of_rows(
    rows: Rows, integers: IntegerBranch, factor: np.ndarray, lam: np.ndarray, part: slice
) -> tuple[float, float, int, float, float]:
    """Largest error and weight, weights that became zero, and squares of signal and noise."""
    few, few_lam = rows[part], lam[part]
    total = integers.of_rows(part)
    difference = total / factor[part] - few
    return (
        float(np.abs(difference).max()),
        float(np.abs(few).max()),
        int(((total == 0) & (few != 0)).sum()),
        float(((few / few_lam) ** 2).sum()),
        float(((difference / few_lam) ** 2).sum()),
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
