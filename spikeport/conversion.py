"""`convert`: from a trained network to an integer spiking program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hw_models.profile import load_profile
from spikeport.agreement import GOOD, advice, agreement
from spikeport.samples import Data, has_boxes, open_samples
from spikeport.trained_network import (
    InputDescription,
    TrainedNetwork,
    interval_of,
    load_network,
    of_float_program,
    of_module,
)
from toolchain.conversion import pipeline
from toolchain.conversion.frontend.adapters import load_adapter_file
from toolchain.conversion.passes.fold import trained_levels
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.engine.settle import with_measured_sleep
from toolchain.errors import ConversionError, UnsupportedModuleError, ValueRangeError
from toolchain.learning.data import Samples, input_spikes
from toolchain.learning.data.dataset import choose_samples
from toolchain.program.int_program import Schedule

if TYPE_CHECKING:
    from toolchain.program.input_quantizer import InputQuantizer

DEFAULT_STEPS = 4
DEFAULT_SLEEP_FACTOR = 4
"""Sleep steps per wake step, if they are neither given nor measured.

A run reports the neurons that have not settled.
"""
CALIBRATION_SAMPLES = 256
CALIBRATION_SEED = 0
ASSUMED_INPUT = (
    "samples are taken as 0 .. 1 (pixel / 255) and as they are: if the network was trained on "
    "normalised samples, give mean= and std=; on another range, input_range="
)
RANDOM_WEIGHTS = (
    "no weights= were given: the weights are those FACTORY returns, random ones unless it loads "
    "its own"
)
_NIR = ".nir"


def convert(
    network: nn.Module | str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: int | Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
    input_bits: int = 8,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    calibrate: Data | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    calibration_seed: int = CALIBRATION_SEED,
    neuron: str = "if",
    steps: int | None = None,
    sleep_steps: int | None = None,
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
        levels.
    sleep_steps:
        CIF: sleep steps, by default measured on the calibration samples, or 4 per wake step without
        them.
    weight_bits:
        Signed width of the weights, in bits.
    target:
        Hardware whose registers the program must fit: a name, or a TOML file. "stock-netx" for
        stock lava-dl.
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
    for file in adapters:
        load_adapter_file(Path(file))
    said = described(input_shape, input_range, input_bits, mean, std)
    samples = None
    if calibrate is not None and not has_boxes(calibrate):
        samples = _calibration_samples(calibrate, calibration_samples, calibration_seed)
    nir_steps = steps or DEFAULT_STEPS
    trained = open_network(network, weights, said, samples, nir_steps, nir_reset, name)
    calibration = None
    if calibrate is not None:
        calibration = open_calibration(
            samples or calibrate, trained.quantizer, calibration_samples, calibration_seed
        )
    levels = trained.levels
    if neuron == "cif" and steps is None and levels is None:
        levels = trained_levels(trained.model, trained.quantizer.shape)
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
    )
    unsaid = [*trained.notes, *_unsaid(trained, said, samples, weights)]
    origin = {**trained.provenance, **_versions(), **(provenance or {})}
    name, quantizer, model = trained.name, trained.quantizer, trained.model
    del trained, network
    prepared = pipeline.prepare(model, quantizer, options, limits, calibration=calibration)
    del model  # frees its weights: the folded ones remain
    conversion = pipeline.lower(prepared, name=name, provenance=origin)
    if calibration is not None and neuron == "cif" and sleep_steps is None:
        conversion = _settled(conversion, calibration)
    found, lost = None, []
    try:
        found = None if calibration is None else agreement(conversion, calibration)
    except ValueRangeError as error:  # only with watch_ranges
        lost = [f"runs end with an error, as one of the calibration samples does: {error}"]
    if found is not None and found.fraction < GOOD:
        lost = [advice(found)]
    return replace(conversion, notes=(*unsaid, *conversion.notes, *lost), agreement=found)


def open_network(
    network: nn.Module | str | Path,
    weights: str | Path | None,
    said: InputDescription,
    samples: Samples | None,
    steps: int = DEFAULT_STEPS,
    nir_reset: str | None = None,
    name: str | None = None,
) -> TrainedNetwork:
    """The trained network, loaded from its path or name, or made from the module itself."""
    if isinstance(network, nn.Module):
        if weights is not None:
            raise ConversionError(
                "a module has its weights", remedy="model.load_state_dict(...) before"
            )
        return of_module(network, said.described(samples), name)
    if not isinstance(network, str | Path):
        raise UnsupportedModuleError(
            "no network",
            found=type(network).__name__,
            allowed="an nn.Module, a checkpoint folder, FILE.py:FACTORY, model:NAME, FILE.onnx or "
            "FILE.nir",
        )
    if Path(network).suffix == _NIR:
        from exports.nir import Reset, read_foreign_nir

        reset = None if nir_reset is None else Reset(nir_reset)
        program = read_foreign_nir(Path(network), steps, reset)
        return of_float_program(program, Path(network), said, samples)
    file = None if weights is None else Path(weights)
    trained = load_network(str(network), file, said, samples)
    return trained if name is None else replace(trained, name=name)


def _unsaid(
    trained: TrainedNetwork,
    said: InputDescription,
    samples: Samples | None,
    weights: str | Path | None,
) -> list[str]:
    """Notes about the assumptions that the user did not state."""
    notes = [RANDOM_WEIGHTS] if weights is None and "factory" in trained.provenance else []
    if said.tells_values or "training" in trained.provenance:
        return notes
    interval = None if samples is None else interval_of(samples)
    if samples is None or interval is None:
        return [*notes, ASSUMED_INPUT]
    return [
        *notes,
        f"samples are taken as {interval[0]:.6g} .. {interval[1]:.6g}, which those of "
        f"{samples.name} span: others outside are refused; input_range= says another range",
    ]


def open_calibration(data: Data, quantizer: InputQuantizer, wanted: int, seed: int) -> Calibration:
    """At most `wanted` samples of `data`, from the training split if the source names none."""
    if not has_boxes(data):
        samples = _calibration_samples(data, wanted, seed)
        return Calibration(samples.name, input_spikes(quantizer, samples))
    images = open_samples(data, split="train", image_size=quantizer.image_size)
    rows = choose_samples(len(images), wanted, seed)
    return Calibration(images.name, input_spikes(quantizer, images)[rows])


def _calibration_samples(data: Data, wanted: int, seed: int) -> Samples:
    samples = open_samples(data, split="train", most=wanted, seed=seed)
    assert isinstance(samples, Samples)
    return samples


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


def described(
    shape: int | Sequence[int] | None = None,
    interval: tuple[float, float] | None = None,
    bits: int = 8,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> InputDescription:
    """The user's description of a sample, see `convert`."""
    sizes = (shape,) if isinstance(shape, int) else None if shape is None else tuple(shape)
    return InputDescription(sizes, interval, bits, _numbers(mean), _numbers(std))


def _numbers(values: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),)
    return tuple(float(value) for value in values)
