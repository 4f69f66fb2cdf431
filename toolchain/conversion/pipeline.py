"""The conversion, stage by stage: trace, fold, check, integerise, fit, prove."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from toolchain.accuracy import Accuracy
from toolchain.conversion.losses import losses
from toolchain.conversion.passes.average_pools import POOLING
from toolchain.conversion.passes.fold import folded_program
from toolchain.conversion.passes.layers import IntegerLayer, layers_of
from toolchain.conversion.quantization.calibration import (
    Calibration,
    LayerStatistics,
    measure,
    with_large_moments,
)
from toolchain.conversion.quantization.fit_ranges import COARSEST, Lowering, Room, fit_ranges
from toolchain.conversion.quantization.integer_choice import NEAREST, IntegerChoice
from toolchain.conversion.quantization.integerise import (
    SPIKING_NEURONS,
    Integerised,
    LayerRounding,
    integerise,
)
from toolchain.conversion.quantization.percentile import plain_relus
from toolchain.conversion.quantization.relu_choice import choose_relus
from toolchain.conversion.quantization.relu_fit import Timing
from toolchain.conversion.quantization.spike_values import with_largest_spike
from toolchain.conversion.quantization.spike_worth import with_reachable_thresholds
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits
from toolchain.program.bounds import PopulationBounds, analyse, prove
from toolchain.program.float_program import Activation, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.program.neurons.graded_integrate_and_fire import LARGEST_SPIKES

_log = logging.getLogger(__name__)

WITHOUT_GPTQ = "all layers round to the nearest: too many inputs for gptq with so many samples, in"


@dataclass(frozen=True)
class ConversionOptions:
    """The user's choices.

    Attributes
    ----------
    neuron:
        "if" or "cif".
    schedule:
        Wake and sleep steps; for CIF the wake steps must equal the trained levels.
    max_spike:
        Largest graded spike K of IF neurons. With K > 1 thresholds are K-th parts, so that T steps
        have K T levels, and the neurons are graded IF neurons.
    weight_bits:
        Signed width of the weights, at most the target's.
    watch_ranges:
        Accept ranges that the analysis cannot prove, and have runs watch them.
    pooling:
        Placement of average pools: "fold" into the following layers, or "stage", a population that
        sums; "auto" folds if that is exact. See `average_pools`.
    thresholds:
        "search": per channel the threshold with the smallest rounding error; "largest": the largest
        that fits. See `threshold_search`. On a target with one threshold per layer, either is the
        largest that fits all its channels.
    rounding:
        "nearest", or "gptq", which needs calibration data; None is gptq where plain ReLUs are
        fitted to such data and the memory suffices. See `rounding`.
    allow_clipping:
        Let the search clip a channel's largest weights if that lowers the error; clipped weights
        are counted.
    relu_percentile:
        Percentile of a plain ReLU's outputs that becomes its threshold; needs calibration data.
        None fits thresholds, initial potentials and weights to the calibration data, and refuses
        plain ReLUs without them. See `percentile`, `relu_choice`.
    fit_weights:
        Whether weights may be fitted with the thresholds of plain ReLUs. See `relu_fit`.
    """

    neuron: str
    schedule: Schedule
    weight_bits: int = 8
    watch_ranges: bool = False
    pooling: str = "auto"
    thresholds: str = "search"
    rounding: str | None = None
    allow_clipping: bool = False
    relu_percentile: float | None = None
    fit_weights: bool = True
    max_spike: int = 1


@dataclass(frozen=True, eq=False)
class Conversion:
    """An integer program, with facts about its conversion.

    Attributes
    ----------
    agreement:
        Calibration samples on which it has the class of the trained network, where measured.
    """

    program: IntProgram
    rounding: tuple[LayerRounding, ...]
    bounds: tuple[PopulationBounds, ...]
    notes: tuple[str, ...]
    agreement: Accuracy | None = None


def convert(
    model: nn.Module | FloatProgram,
    quantizer: InputQuantizer,
    options: ConversionOptions,
    limits: TargetLimits,
    *,
    name: str,
    provenance: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Conversion:
    """Convert a trained network into an integer program that provably stays in its ranges.

    A module is traced, and the result is checked against it; a float program is used unchanged.
    The rounding errors of each layer are added to the program's provenance.

    Raises
    ------
    SpikeportError
        If the network cannot be converted exactly. The error says where, what is allowed and what
        to do.
    """
    prepared = prepare(model, quantizer, options, limits, calibration=calibration)
    return lower(prepared, name=name, provenance=provenance)


@dataclass(frozen=True)
class Prepared:
    """A network ready to be integerised; its module is no longer needed.

    Attributes
    ----------
    trained:
        The folded network as it was trained.
    folded:
        What becomes integers, with the thresholds and weights fitted to plain ReLUs.
    notes:
        Notes for the user so far.
    quantizer, options, limits, calibration:
        As given to `prepare`; the rounding is chosen.
    """

    trained: FloatProgram
    folded: FloatProgram
    notes: tuple[str, ...]
    quantizer: InputQuantizer
    options: ConversionOptions
    limits: TargetLimits
    calibration: Calibration | None


def prepare(
    model: nn.Module | FloatProgram,
    quantizer: InputQuantizer,
    options: ConversionOptions,
    limits: TargetLimits,
    *,
    calibration: Calibration | None = None,
) -> Prepared:
    """The first half of `convert`: trace, fold, and check against the module.

    Raises
    ------
    SpikeportError
        See `convert`.
    """
    _check_options(options, quantizer, limits, calibration)
    steps = options.schedule.wake_steps
    trained, notes = folded_program(
        model,
        quantizer,
        pooling=options.pooling,
        levels=steps * options.max_spike,
        plain_relu=calibration is not None,
    )
    folded = with_largest_spike(trained, options.max_spike)
    if calibration is not None:
        folded, more = choose_relus(
            folded,
            quantizer,
            calibration,
            Timing(steps, options.neuron == "cif", options.max_spike),
            percentile=options.relu_percentile,
            fit_weights=options.fit_weights,
        )
        notes += more
    folded, raised = with_reachable_thresholds(folded, quantizer, options.weight_bits, limits)
    notes += raised + _check_levels(folded, options)
    if options.rounding is None:
        rounding = NEAREST
        if calibration is not None and options.relu_percentile is None and plain_relus(folded):
            too_large = with_large_moments(folded, len(calibration.inputs))
            rounding = NEAREST if too_large else "gptq"
            notes += (f"{WITHOUT_GPTQ} {', '.join(too_large)}",) if too_large else ()
        options = replace(options, rounding=rounding)
    return Prepared(trained, folded, notes, quantizer, options, limits, calibration)


def lower(
    prepared: Prepared, *, name: str, provenance: Mapping[str, Any] | None = None
) -> Conversion:
    """The second half of `convert`: integerise, and prove the ranges.

    Raises
    ------
    SpikeportError
        See `convert`.
    """
    folded, options, calibration = prepared.folded, prepared.options, prepared.calibration
    quantizer, limits = prepared.quantizer, prepared.limits
    statistics: Mapping[str, LayerStatistics] = {}
    if calibration is not None:
        compensates = options.rounding == "gptq"
        levels = options.schedule.wake_steps
        statistics = measure(
            folded, quantizer, calibration, levels=levels, with_moments=compensates
        )
    program, rounding = _integers(folded, quantizer, options, limits, name, statistics)
    _log.debug("integers: %d layers of %d-bit weights", len(rounding), options.weight_bits)
    notes = prepared.notes + losses(rounding, options.weight_bits, options.rounding, limits)
    origin = {**(provenance or {}), **_origin(folded, rounding, options, calibration)}
    program = replace(program, watch_ranges=options.watch_ranges, provenance=origin)
    bounds = analyse(program) if options.watch_ranges else prove(program)
    proved = "analysed, runs watch them" if options.watch_ranges else "proved for every input"
    headroom = min(bound.headroom_bits(program.state_range) for bound in bounds)
    _log.debug("ranges %s: least headroom %.1f bits", proved, headroom)
    return Conversion(program, tuple(rounding), bounds, notes)


def _integers(
    folded: FloatProgram,
    quantizer: InputQuantizer,
    options: ConversionOptions,
    limits: TargetLimits,
    name: str,
    statistics: Mapping[str, LayerStatistics],
) -> tuple[IntProgram, list[LayerRounding]]:
    """Integers that fit their ranges, and their rounding errors.

    Ranges are fitted with rounding to the nearest. Compensating rounding starts from there, since
    it changes sums of weights only a little.
    """
    rounding_way = options.rounding or NEAREST
    choice = IntegerChoice(options.thresholds, rounding_way, options.allow_clipping, statistics)
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

    def lowered(choose: IntegerChoice) -> Lowering:
        kept: dict[str, Integerised] = {}
        return lambda room: lower(room=room, choose=choose, kept=kept)

    room: Room = {}
    if options.watch_ranges:
        program, rounding = lowered(choice)(room)
    else:
        # Half a unit of a narrow weight is already coarse; half as much again is the cost.
        coarsest = max(COARSEST, 1.5 * _half_unit(options.weight_bits))
        nearest = replace(choice, rounding=NEAREST)
        program, rounding = fit_ranges(lowered(nearest), room, coarsest=coarsest)
        if rounding_way != NEAREST:
            program, rounding = fit_ranges(lowered(choice), room, coarsest=np.inf)
    measured = [
        replace(r, saturated=statistics[r.name].saturated) if r.name in statistics else r
        for r in rounding
    ]
    return program, measured


def _half_unit(weight_bits: int) -> float:
    """Rounding error of a weight of these bits, relative to the largest one."""
    return 0.5 / IntRange.signed(weight_bits).high


def _origin(
    folded: FloatProgram,
    rounding: list[LayerRounding],
    options: ConversionOptions,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """How the integers were chosen and their rounding errors, for the provenance.

    Measured thresholds are included, since they are not in the checkpoint.
    """
    measured: dict[str, Any] = {}
    if calibration is not None and plain_relus(folded):
        activations = {
            layer.name: layer.activation
            for layer in layers_of(folded)
            if isinstance(layer, IntegerLayer) and layer.activation is not None
        }
        measured["relu_thresholds"] = {n: a.threshold.tolist() for n, a in activations.items()}
        measured["relu_shifts"] = {
            n: np.atleast_1d(a.shift).tolist() for n, a in activations.items()
        }
    return {
        **measured,
        "integers": {
            "pooling": options.pooling,
            "thresholds": options.thresholds,
            "rounding": options.rounding,
            "allow_clipping": options.allow_clipping,
            "relu_percentile": options.relu_percentile,
            "fit_weights": options.fit_weights,
            "calibration": None if calibration is None else calibration.name,
            "calibration_samples": 0 if calibration is None else len(calibration.inputs),
            "calibration_sha256": None if calibration is None else calibration.sha256,
        },
        "rounding": [asdict(r) for r in rounding],
    }


def _check_options(
    options: ConversionOptions,
    quantizer: InputQuantizer,
    limits: TargetLimits,
    calibration: Calibration | None,
) -> None:
    IntegerChoice(options.thresholds, options.rounding or NEAREST, options.allow_clipping)
    if options.allow_clipping and limits.one_threshold:
        raise ConversionError(
            "clipping is part of the search for each channel's threshold",
            found=f"one threshold for all channels of a layer on {limits.name}",
            remedy="leave out allow_clipping=",
        )
    needs = [
        name
        for name, wanted in (
            ("rounding gptq", options.rounding == "gptq"),
            ("a percentile for ReLUs", options.relu_percentile is not None),
        )
        if wanted
    ]
    if needs and calibration is None:
        raise ConversionError(
            f"{needs[0]} needs calibration data",
            found="none",
            remedy="calibrate=DATA, samples as the network was trained on",
        )
    if calibration is not None and quantizer.per_step:
        tensors, wake = calibration.inputs.shape[1], options.schedule.wake_steps
        if tensors != wake:
            raise ConversionError(
                "a sequence has one tensor for each wake step",
                node=calibration.name,
                found=f"{tensors} tensors",
                allowed=f"{wake} wake steps",
                remedy=f"convert with steps={tensors}, or give sequences of this length",
            )
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
    _check_largest_spike(options, limits)
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
            remedy='use neuron="cif", or leave sleep_steps= out',
        )


def _check_largest_spike(options: ConversionOptions, limits: TargetLimits) -> None:
    most, held = options.max_spike, IntRange.unsigned(limits.max_spike_bits)
    possible = IntRange(1, LARGEST_SPIKES.high)
    if not possible.contains(most, most):
        raise ConversionError("no such largest spike", found=most, allowed=str(possible))
    if most > 1 and options.neuron != "if":
        raise ConversionError(
            "graded spikes are for IF neurons",
            found=f"max_spike={most} with {options.neuron}",
            remedy='use neuron="if", or leave max_spike= out',
        )
    if most > held.high:
        raise ConversionError(
            "the target's neurons do not send such spikes",
            found=f"max_spike={most}",
            allowed=f"up to {held.high} on {limits.name}",
            remedy="use a smaller max_spike=, or more steps; a target's profile says what it "
            "sends: max_spike_bits",
        )


def _check_levels(program: FloatProgram, options: ConversionOptions) -> tuple[str, ...]:
    """Notes on the steps; CIF is lossless only if the wake steps are the trained levels."""
    activations = [n for n in program.nodes if isinstance(n, Activation) and not n.is_constant]
    levels = {n.name: n.levels for n in activations}
    steps, most = options.schedule.wake_steps, options.max_spike
    if options.neuron == "cif":
        other = {n: q for n, q in levels.items() if q != steps}
        if other:
            name, found = next(iter(other.items()))
            raise ConversionError(
                "CIF is loss-free only with as many wake steps as trained levels",
                node=name,
                found=f"{steps} wake steps for {found} levels",
                allowed=f"{found} wake steps",
            )
        return ()
    return tuple(
        f"trained with {q} levels, run with T = {steps}"
        + (f" and spikes up to {most}: " if most > 1 else ": ")
        + ", ".join(n for n, other in levels.items() if other == q)
        for q in sorted(set(levels.values()))
        if q != steps * most
    )
