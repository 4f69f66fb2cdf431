"""The conversion, stage by stage: trace, fold, check, integerise to fit, prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from toolchain.conversion.average_pools import POOLING, settle_average_pools
from toolchain.conversion.concatenations import split_concatenations
from toolchain.conversion.evaluate import check_against_module
from toolchain.conversion.fit_ranges import fit_ranges
from toolchain.conversion.fold_batch_norm import fold_batch_norm
from toolchain.conversion.integerise import SPIKING_NEURONS, LayerRounding, integerise
from toolchain.conversion.max_pools import place_max_pools
from toolchain.conversion.trace import trace
from toolchain.errors import ConversionError
from toolchain.int_range import TargetLimits
from toolchain.program.bounds import PopulationBounds, analyse, prove
from toolchain.program.float_program import Activation, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule

CHECK_SAMPLES = 8
CHECK_SEED = 0
COARSE = 2.5
"""Weight errors of a layer above this many half units are told; one is what rounding costs."""


@dataclass(frozen=True)
class ConversionOptions:
    """What the user chooses.

    Attributes
    ----------
    neuron:
        "if" or "cif".
    schedule:
        Wake and sleep steps; for CIF the wake steps must equal the trained levels.
    weight_bits:
        Signed width of the weights, at most the target's.
    watch_ranges:
        Accept what the range analysis cannot prove and have the run watch it.
    pooling:
        What becomes of average pools: "fold" into the layers behind, or "stage", a population
        that sums; "auto" folds where that is exact. See `average_pools`.
    """

    neuron: str
    schedule: Schedule
    weight_bits: int = 8
    watch_ranges: bool = False
    pooling: str = "auto"


@dataclass(frozen=True, eq=False)
class Conversion:
    """An integer program with what its making found out."""

    program: IntProgram
    float_program: FloatProgram
    rounding: tuple[LayerRounding, ...]
    bounds: tuple[PopulationBounds, ...]
    notes: tuple[str, ...]


def convert(
    model: nn.Module,
    quantizer: InputQuantizer,
    options: ConversionOptions,
    limits: TargetLimits,
    *,
    name: str,
    provenance: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert a trained network into an integer program that provably stays in its ranges.

    Raises
    ------
    SpikeportError
        Naming the module or layer, what is allowed and what to do.
    """
    _check_options(options, quantizer, limits)
    traced = trace(model, quantizer.shape)
    folded, notes = fold(traced, options.pooling)
    check_against_module(model, folded, _samples(quantizer))
    notes += _check_levels(folded, options)
    lower = partial(
        integerise,
        folded,
        quantizer,
        name=name,
        neuron=options.neuron,
        schedule=options.schedule,
        weight_bits=options.weight_bits,
        limits=limits,
    )
    program, rounding = (
        lower() if options.watch_ranges else fit_ranges(lambda room: lower(room=room))
    )
    notes += _coarse_layers(rounding, options.weight_bits)
    program = replace(program, watch_ranges=options.watch_ranges, provenance=dict(provenance or {}))
    bounds = analyse(program) if options.watch_ranges else prove(program)
    return Conversion(program, folded, tuple(rounding), bounds, notes)


def fold(program: FloatProgram, pooling: str = "auto") -> tuple[FloatProgram, tuple[str, ...]]:
    """All exact passes over a traced program, and notes on what they had to leave.

    The result holds weighted layers, sums, activations, max pools, and the average pools that
    stay stages.

    Raises
    ------
    UnsupportedModuleError, ConversionError
        Naming the node that has no exact place.
    """
    normed = fold_batch_norm(program)
    split = split_concatenations(normed)
    placed = place_max_pools(split)
    return settle_average_pools(placed, pooling)


def _check_options(
    options: ConversionOptions, quantizer: InputQuantizer, limits: TargetLimits
) -> None:
    if quantizer.bits > limits.max_input_bits:
        raise ConversionError(
            "the target's graded spikes are narrower than the input",
            node="input",
            found=f"{quantizer.bits} bits",
            allowed=f"{limits.max_input_bits} bits on {limits.name}",
        )
    if options.neuron not in SPIKING_NEURONS:
        raise ConversionError(
            "no such neuron", found=options.neuron, allowed=", ".join(SPIKING_NEURONS)
        )
    if options.pooling not in POOLING:
        raise ConversionError("no such pooling", found=options.pooling, allowed=", ".join(POOLING))
    if not 2 <= options.weight_bits <= limits.weight_bits:
        raise ConversionError(
            "weight bits out of range",
            found=options.weight_bits,
            allowed=f"2 .. {limits.weight_bits} on {limits.name}",
        )
    if options.neuron == "if" and options.schedule.sleep_steps:
        raise ConversionError(
            "sleep steps are for CIF neurons",
            found=f"{options.schedule.sleep_steps} sleep steps with IF",
            remedy="use --neuron cif, or leave --sleep out",
        )


def _check_levels(program: FloatProgram, options: ConversionOptions) -> tuple[str, ...]:
    """CIF is loss-free only when the wake steps are the trained levels."""
    levels = {n.name: n.levels for n in program.nodes if isinstance(n, Activation)}
    steps = options.schedule.wake_steps
    if options.neuron == "cif":
        other = {n: q for n, q in levels.items() if q != steps}
        if other:
            name, found = next(iter(other.items()))
            raise ConversionError(
                "CIF is loss-free only with as many wake steps as trained levels",
                node=name,
                found=f"{steps} wake steps for {found} levels",
                allowed=f"--wake {found}",
            )
        return ()
    return tuple(
        f"trained with {q} levels, run with T = {steps}: "
        + ", ".join(n for n, other in levels.items() if other == q)
        for q in sorted(set(levels.values()))
        if q != steps
    )


def _coarse_layers(rounding: list[LayerRounding], weight_bits: int) -> tuple[str, ...]:
    """Notes on layers scaled down, or whose weights lost much more than rounding's half unit."""
    usual = 1.0 / (1 << weight_bits)
    return tuple(
        f"{r.name}: rounding moves weights by up to {100 * r.weight_error:.1f} % of the largest; "
        f"{_reason(r)}"
        for r in rounding
        if r.lowered or r.weight_error > COARSE * usual
    ) + tuple(
        f"{r.name}: the branch from {b.source} adds less than 1/256 of a threshold a step and is "
        f"rounded by up to {100 * b.weight_error:.0f} % of its largest weight"
        for r in rounding
        for b in r.branches
        if b.negligible and b.weight_error > COARSE * usual
    )


def _reason(rounding: LayerRounding) -> str:
    if rounding.lowered:
        return (
            f"{rounding.lowered} channels were scaled down so that no input can overflow the "
            "state (--watch-ranges keeps full precision and has the run watch it)"
        )
    low, high = rounding.threshold_low, rounding.threshold_high
    return f"its thresholds ({low}..{high}) stand at the target's limit"


def _samples(quantizer: InputQuantizer) -> torch.Tensor:
    """Seeded samples over the quantizer's whole range, normalised values, to check the trace."""
    rng = np.random.default_rng(CHECK_SEED)
    integers = rng.integers(
        quantizer.range.low, quantizer.range.high + 1, (CHECK_SAMPLES, *quantizer.shape)
    )
    return torch.from_numpy(integers * quantizer.scale)
