"""`convert`: from a trained network to an integer spiking program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_models.profile import load_profile
from spikeport.agreement import GOOD, advice, agreement
from spikeport.chips import check_layers
from spikeport.given_network import (
    CALIBRATION_SAMPLES,
    CALIBRATION_SEED,
    ForeignNir,
    GivenNetwork,
    described,
)
from spikeport.samples import Data
from toolchain.conversion import pipeline
from toolchain.conversion.passes.fold import trained_activations
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.engine.settle import with_measured_sleep
from toolchain.errors import ValueRangeError
from toolchain.program.int_program import Schedule

if TYPE_CHECKING:
    from torch import nn

    from spikeport.trained_network import TrainedNetwork

DEFAULT_STEPS = 4
DEFAULT_SLEEP_FACTOR = 4
"""Sleep steps per wake step, if they are neither given nor measured.

A run reports the neurons that have not settled.
"""


def convert(
    network: nn.Module | str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: int | Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
    input_bits: int = 8,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    input_per_step: bool = False,
    calibrate: Data | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    calibration_seed: int = CALIBRATION_SEED,
    neuron: str = "if",
    steps: int | None = None,
    sleep_steps: int | None = None,
    max_spike: int = 1,
    weight_bits: int = 8,
    target: str = "loihi2",
    pooling: str = "auto",
    thresholds: str = "search",
    rounding: str | None = None,
    allow_clipping: bool = False,
    relu_percentile: float | None = None,
    fit_weights: bool = True,
    watch_ranges: bool = False,
    adapters: Sequence[str | Path] = (),
    nir_reset: str | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> pipeline.Conversion:
    """Convert a trained network into an integer IF or CIF program that provably fits its registers.

    Parameters
    ----------
    network:
        A module; a checkpoint folder; "FILE.py:FACTORY" or "package.module:FACTORY"; "model:NAME"
        for weights of torchvision or timm; an ONNX file; or the NIR file of another tool.
    weights:
        State dict for a factory or a named network (.safetensors, .pt).
    input_shape:
        (C, H, W) or (F,) of one sample; by default the shape of the calibration samples, or the
        shape that the network states itself.
    input_range:
        Lowest and highest real value of a sample, before `mean` and `std`. By default 0 .. 1, the
        range of pixels, or the range of the calibration samples if that is wider.
    input_bits:
        Width of a graded input spike, in bits.
    mean, std:
        Normalisation of samples, one value for all channels or one per channel.
    input_per_step:
        Whether samples change over time: (N, T, C, H, W), one tensor of `input_shape` for each of
        the T wake steps, for example frames of an event camera. The network itself still takes
        (N, C, H, W); it is compared on the mean over the steps. A checkpoint of `train` knows it.
    calibrate:
        Calibration samples: a data source ("digits@train"), an array or tensor (N, ...), a torch
        Dataset or DataLoader. They are used to measure sleep steps (CIF), compensating rounding,
        thresholds of plain ReLUs and saturation.
    calibration_samples, calibration_seed:
        Number of calibration samples, and the seed of their random choice.
    neuron:
        "if" or "cif".
    steps:
        IF: time steps T, by default 4. CIF: wake steps Q, by default the trained quantization
        levels. With inputs per step, by default the length of the calibration samples, or of those
        it was trained on.
    sleep_steps:
        CIF: sleep steps, by default measured on the calibration samples, or 4 per wake step without
        them.
    max_spike:
        IF: largest graded spike K. Above 1, a neuron sends up to K spikes of a step as one message
        with their number, so that T steps have K T levels; in one step with K trained levels the
        network is the trained one, but for rounding. The target must send numbers, as Loihi 2 does.
    weight_bits:
        Signed width of the weights, in bits.
    target:
        Hardware whose registers the program must fit: a name, or a TOML file. "stock-netx" for
        stock lava-dl; "speck", whose cores hold one layer each, takes only what fits the chip.
    pooling, thresholds, rounding, allow_clipping, relu_percentile, fit_weights, watch_ranges:
        See `ConversionOptions`.
    adapters:
        Python files that define activation adapters, see `activation_adapter`.
    nir_reset:
        "subtract" or "zero": how a neuron of another tool's NIR graph is reset after a spike.
    name:
        Name of the program.
    provenance:
        Additional facts about the origin, JSON values by key.

    Raises
    ------
    SpikeportError
        If the network cannot be converted exactly. The error says where and why.

    Examples
    --------
    >>> import torch, spikeport
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), spikeport.QCFS(levels=4), torch.nn.Linear(8, 2)
    ... )
    >>> conversion = spikeport.convert(model, calibrate=torch.rand(32, 4))
    >>> conversion.program.schedule.wake_steps
    4
    """
    limits = load_profile(target).as_target_limits()
    given = GivenNetwork(
        network,
        weights,
        described(input_shape, input_range, input_bits, mean, std, per_step=input_per_step),
        calibrate,
        calibration_samples,
        calibration_seed,
        tuple(adapters),
    )
    opened = given.open(name, ForeignNir(steps or DEFAULT_STEPS, nir_reset))
    trained, calibration = opened.trained, opened.calibration
    levels = trained.levels
    if steps is None and trained.quantizer.per_step:
        steps = _length(trained, calibration)
    if neuron == "cif" and steps is None and levels is None:
        _, levels = trained_activations(trained.model, trained.quantizer.shape)
    options = pipeline.ConversionOptions(
        neuron,
        _schedule(neuron, steps, sleep_steps, levels),
        weight_bits,
        watch_ranges,
        pooling,
        thresholds=thresholds,
        rounding=rounding,
        allow_clipping=allow_clipping,
        relu_percentile=relu_percentile,
        fit_weights=fit_weights,
        max_spike=max_spike,
    )
    unsaid = opened.notes
    origin = {**trained.provenance, **_versions(), **(provenance or {})}
    name, quantizer, model = trained.name, trained.quantizer, trained.model
    del opened, trained, given, network
    prepared = pipeline.prepare(model, quantizer, options, limits, calibration=calibration)
    del model  # frees its weights: the folded ones remain
    conversion = pipeline.lower(prepared, name=name, provenance=origin)
    if calibration is not None and neuron == "cif" and sleep_steps is None:
        conversion = _settled(conversion, calibration)
    unsaid = (*unsaid, *check_layers(conversion.program, target))
    found, lost = None, []
    try:
        found = (
            None
            if calibration is None
            else agreement(conversion.program, prepared.trained, calibration)
        )
    except ValueRangeError as error:  # only with watch_ranges
        lost = [f"runs end with an error, as one of the calibration samples does: {error}"]
    if found is not None and found.fraction < GOOD:
        lost = [advice(found)]
    return replace(conversion, notes=(*unsaid, *conversion.notes, *lost), agreement=found)


def _length(trained: TrainedNetwork, calibration: Calibration | None) -> int | None:
    """Steps of the sequences: of calibration samples, or of those it was trained on."""
    if calibration is not None:
        return int(calibration.inputs.shape[1])
    return None if trained.checkpoint is None else trained.checkpoint.frames


def _schedule(
    neuron: str, steps: int | None, sleep_steps: int | None, levels: int | None
) -> Schedule:
    if neuron != "cif":
        return Schedule(steps or DEFAULT_STEPS, sleep_steps or 0)
    wake = steps or levels or DEFAULT_STEPS
    return Schedule(wake, DEFAULT_SLEEP_FACTOR * wake if sleep_steps is None else sleep_steps)


def _settled(conversion: pipeline.Conversion, calibration: Calibration) -> pipeline.Conversion:
    """The conversion, with its sleep steps measured on the calibration samples."""
    settled = with_measured_sleep(conversion.program, calibration.inputs)
    note = (
        f"settles within {settled.measured} sleep steps on {len(calibration.inputs)} samples of "
        f"{calibration.name}"
    )
    notes = (*conversion.notes, note)
    return replace(conversion, program=settled.program, bounds=settled.bounds, notes=notes)


def _versions() -> dict[str, Any]:
    """Versions of the packages that may change the result."""
    import platform

    import numpy
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["numpy"] = numpy.__version__
    return {"versions": versions}
