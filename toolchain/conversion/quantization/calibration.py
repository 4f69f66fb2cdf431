"""Measurements on a calibration set: the inputs of each layer, and the saturation.

The float network runs on the quantized samples, with its activations
quantized to as many levels as the spiking network has wake steps: the rates of its neurons to
first order. The inputs are those of the float network, not of one whose earlier layers are
already rounded. On small networks at 2 to 8 bits both gave the same counts and
logits within their scatter, and one pass is enough for all layers and thresholds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.float_values import node_values, samples_at_once
from toolchain.conversion.passes.layers import IntegerLayer, Term, layers_of
from toolchain.conversion.quantization.input_moments import InputMoments
from toolchain.conversion.quantization.spike_values import spikes_of
from toolchain.errors import ConversionError, DataError
from toolchain.program.float_program import Activation, FloatProgram, Linear
from toolchain.program.input_quantizer import InputQuantizer

MINIMUM_SAMPLES = 16
"""Smallest calibration set; GPTQ's authors use 128 sequences."""
MOST_BYTES = 2 << 30
"""Largest second moments of one layer: about 16000 inputs of one output; more with few samples."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration samples.

    Attributes
    ----------
    name:
        Name of the data source.
    inputs:
        Graded input spikes, int (N, ...), or sequences (N, T, ...).
    """

    name: str
    inputs: np.ndarray

    def __post_init__(self) -> None:
        if len(self.inputs) < MINIMUM_SAMPLES:
            raise DataError(
                "too few samples to calibrate on",
                node=self.name,
                found=len(self.inputs),
                allowed=f"at least {MINIMUM_SAMPLES}",
                remedy="give a longer slice, or raise calibration_samples=",
            )

    @cached_property
    def sha256(self) -> str:
        """Hash of the graded input spikes, as little-endian int64, with their shape."""
        digest = hashlib.sha256(f"{self.inputs.shape}:".encode())
        digest.update(np.ascontiguousarray(self.inputs.astype("<i8")).data)
        return digest.hexdigest()

    def batches(self, quantizer: InputQuantizer, size: int) -> Iterator[Tensor]:
        """Normalised samples as the integer network gets them, float64 (n, ...), `size` at once.

        The networks that are measured have no time: of sequences they get the mean over the steps.
        """
        for start in range(0, len(self.inputs), size):
            chunk = quantizer.mean_inputs(self.inputs[start : start + size])
            yield torch.from_numpy(chunk * quantizer.scale)

    def by_steps(self, quantizer: InputQuantizer, rows: np.ndarray) -> Tensor:
        """Normalised samples with these indices, float32 (T, n, ...); T is 1 if all are equal."""
        inputs = self.inputs[rows]
        steps = inputs.swapaxes(0, 1) if quantizer.per_step else inputs[None]
        return torch.from_numpy(steps * quantizer.scale).float()


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Measurements of one layer on the calibration samples.

    Attributes
    ----------
    moments:
        Second moments of the inputs of the compensated branches, in spikes; None if not requested.
    compensated:
        Whether `moments` contain the inputs, per branch. A depthwise branch beside others, such as
        an identity, is excluded: every channel would need its own moments.
    saturated:
        Share of pre-activations at or above the threshold, which the activation clips; None for
        a readout.
    """

    moments: InputMoments | None
    compensated: tuple[bool, ...]
    saturated: float | None


@torch.no_grad()
def measure(
    program: FloatProgram,
    quantizer: InputQuantizer,
    calibration: Calibration,
    *,
    levels: int,
    with_moments: bool,
) -> Mapping[str, LayerStatistics]:
    """Statistics of every layer with weights, by name, for `levels` spikes of each activation.

    Raises
    ------
    ConversionError
        If a layer has too many inputs for its second moments.
    """
    nodes = (
        replace(n, levels=levels * n.max_spike) if isinstance(n, Activation) else n
        for n in program.nodes
    )
    rates = replace(program, nodes=tuple(nodes))
    grouped = layers_of(program)
    spikes = spikes_of(grouped, quantizer)
    layers = [layer for layer in grouped if isinstance(layer, IntegerLayer)]
    samples = len(calibration.inputs)
    moments = {layer.name: _empty(layer, samples) for layer in layers if with_moments}
    above = dict.fromkeys((layer.name for layer in layers), 0)
    seen = dict(above)
    for batch in calibration.batches(quantizer, samples_at_once(program)):
        values = node_values(rates, batch)
        for layer in layers:
            if with_moments:
                moments[layer.name].add(
                    [
                        _in_spikes(values[t.operation.source], spikes[t.source].value)
                        for t in _compensated(layer)
                    ]
                )
            if layer.activation is not None:
                before = values[layer.activation.source]
                lam = _per_channel(layer.activation.threshold, before)
                above[layer.name] += int((before >= lam).sum())
                seen[layer.name] += before.numel()
    return {
        layer.name: LayerStatistics(
            moments.get(layer.name),
            tuple(t in _compensated(layer) for t in layer.terms),
            above[layer.name] / seen[layer.name] if seen[layer.name] else None,
        )
        for layer in layers
    }


def with_large_moments(program: FloatProgram, samples: int) -> list[str]:
    """Layers the second moments of whose inputs are too large to be measured."""
    layers = (layer for layer in layers_of(program) if isinstance(layer, IntegerLayer))
    return [layer.name for layer in layers if _moment_bytes(layer, samples) > MOST_BYTES]


def _moment_bytes(layer: IntegerLayer, samples: int) -> int:
    operations = [t.operation for t in _compensated(layer)]
    return InputMoments.bytes_for(operations, samples * prod(layer.shape[1:]))


def _compensated(layer: IntegerLayer) -> list[Term]:
    return [t for t in layer.terms if len(layer.terms) == 1 or not _one_input_per_channel(t)]


def _one_input_per_channel(term: Term) -> bool:
    operation = term.operation
    if isinstance(operation, Linear):
        return term.identity
    return operation.groups > 1 and operation.weight.shape[1] == 1


def _empty(layer: IntegerLayer, samples: int) -> InputMoments:
    size = _moment_bytes(layer, samples)
    if size > MOST_BYTES:
        raise ConversionError(
            "this layer has too many inputs for error-compensating rounding",
            node=layer.name,
            found=f"{size / 2**30:.1f} GiB of second moments",
            allowed=f"{MOST_BYTES / 2**30:.0f} GiB",
            remedy='use rounding="nearest", or fewer calibration samples',
        )
    operations = [t.operation for t in _compensated(layer)]
    return InputMoments(operations, samples * prod(layer.shape[1:]))


def _per_channel(values: np.ndarray, like: Tensor) -> Tensor:
    """`values`, (1,) or (C,), shaped to broadcast against (N, C, H, W), or (N, F) with F = k C."""
    tensor = torch.from_numpy(np.array(values, np.float64))
    if len(tensor) == 1:
        return tensor
    tensor = tensor.repeat_interleave(like.shape[1] // len(tensor))
    return tensor.reshape(1, -1, *([1] * (like.ndim - 2)))


def _in_spikes(value: Tensor, worth: np.ndarray) -> Tensor:
    return value / _per_channel(worth, value)
