"""The network that an integer program was converted from, evaluated layer by layer.

Values are those of the folded float network, (n, ...), by population name; those of the input are
normalised samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.conversion.float_values import max_pool
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.average_pools import POOLING
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.passes.layers import (
    AnyLayer,
    IntegerLayer,
    MaxPoolLayer,
    SumLayer,
    Term,
    layers_of,
)
from toolchain.conversion.quantization.spike_values import Spikes, spike_value, spikes_of
from toolchain.errors import CheckpointError, ProgramError
from toolchain.program.float_program import Conv2d
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.neurons import ThresholdNeuron
from toolchain.simulator.planes import correlated


class Acts(Enum):
    """Activation function of a pre-activation z with threshold lam.

    - relu: max(z, 0);
    - clipped: min(max(z, 0), lam);
    - quantized: rounded to the levels that a spiking network can send in its steps.
    """

    RELU = "relu"
    CLIPPED = "clipped"
    QUANTIZED = "quantized"


@dataclass(frozen=True, eq=False)
class SourceNetwork:
    """The folded float network of a program.

    Attributes
    ----------
    layers:
        Layers in the program's order, with its names.
    spikes:
        Value of a spike of each layer.
    measured:
        Whether the thresholds of plain ReLUs were measured: then clipping is an error of the
        conversion, otherwise the network was trained with it.
    """

    program: IntProgram
    layers: tuple[AnyLayer, ...]
    spikes: Mapping[str, Spikes]
    measured: bool

    @classmethod
    def of(cls, program: IntProgram, model: nn.Module) -> SourceNetwork:
        """The source network from the module that `program` was converted from.

        Raises
        ------
        CheckpointError
            If the module has other layers than the program.
        """
        origin = program.origin("integers", dict) or {}
        thresholds = program.origin("relu_thresholds", dict[str, list[float]])
        traced = trace(model, program.input.shape, plain_relu=thresholds is not None)
        chosen = origin.get("pooling")
        for pooling in POOLING if chosen is None else (chosen,):
            folded, _ = fold(traced, pooling)
            layers = tuple(layers_of(folded))
            if _shapes(layers) == [(p.name, p.shape) for p in program.populations]:
                break
        else:
            raise CheckpointError(
                "the checkpoint is not the network that the file was converted from",
                node=program.name,
                found=", ".join(layer.name for layer in layers),
                allowed=", ".join(p.name for p in program.populations),
                remedy="give the checkpoint it was made of; `spikeport inspect` shows where "
                "it came from",
            )
        if thresholds is not None:
            shifts = program.origin("relu_shifts", dict[str, list[float]]) or {}
            layers = tuple(_with_threshold(n, thresholds, shifts, program) for n in layers)
        layers = tuple(_with_largest_spike(layer, program) for layer in layers)
        spikes = spikes_of(layers, program.input)
        return cls(program, layers, spikes, thresholds is not None)

    def preactivation(self, layer: IntegerLayer, values: Mapping[str, Tensor]) -> Tensor:
        """Pre-activation z of a layer, (n, ...), for the values of its sources."""
        like = next(iter(values.values()))
        total = torch.from_numpy(layer.bias).to(like.dtype)
        total = total.reshape(1, -1, *([1] * (len(layer.shape) - 1)))
        for term in layer.terms:
            x, operation = values[term.source], term.operation
            weight = torch.from_numpy(np.array(operation.weight)).to(x.dtype)
            if isinstance(operation, Conv2d):
                total = total + correlated(operation, x, weight)
            else:
                total = total + F.linear(x.flatten(1), weight)
        return total

    def threshold(self, layer: IntegerLayer, like: Tensor) -> Tensor:
        """Threshold lam of a layer, broadcast to (n, ...)."""
        assert layer.activation is not None
        return _per_channel(layer.activation.threshold, like)

    def _shift(self, layer: IntegerLayer, like: Tensor) -> Tensor:
        """Initial potential of a layer in thresholds, broadcast to (n, ...)."""
        assert layer.activation is not None
        return _per_channel(layer.activation.shift, like)

    def activated(self, layer: IntegerLayer, z: Tensor, acts: Acts) -> Tensor:
        """Activations for pre-activations (n, ...), in units of lam."""
        assert layer.activation is not None
        x = z / self.threshold(layer, z)
        if acts is Acts.RELU:
            return x.clamp(min=0)
        if acts is Acts.CLIPPED:
            return x.clamp(0, 1)
        levels = self.program.schedule.wake_steps * layer.activation.max_spike
        return (x * levels + self._shift(layer, z)).floor().clamp(0, levels) / levels

    @torch.no_grad()
    def forward(self, x: Tensor, acts: Acts) -> dict[str, Tensor]:
        """Values of all layers for normalised samples (n, ...); the readouts' are the outputs."""
        values = {INPUT: x}
        for layer in self.layers:
            if isinstance(layer, MaxPoolLayer):
                values[layer.name] = max_pool(layer.pool, values[layer.source])
                continue
            if isinstance(layer, SumLayer):
                values[layer.name] = summed(layer, values)
                continue
            z = self.preactivation(layer, values)
            if layer.activation is None:
                values[layer.name] = z
            else:
                values[layer.name] = self.activated(layer, z, acts) * self.threshold(layer, z)
        return values

    @torch.no_grad()
    def spiking_outputs(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Mean outputs (n, ...) of the spiking network with these weights and thresholds.

        `inputs` are graded spikes, int (n, *sample_shape).
        """
        schedule = self.program.schedule
        states: dict[str, Any] = {}
        total: dict[str, Tensor] = {}
        for step in range(schedule.num_steps):
            awake = step < schedule.wake_steps
            if awake:
                (now,) = self.program.awake_inputs(inputs, step, 1)
                x = torch.from_numpy(now * self.program.input.scale).float()
            values = {INPUT: x if awake else torch.zeros_like(x)}
            for layer in self.layers:
                if isinstance(layer, MaxPoolLayer):
                    values[layer.name] = self._pool_step(layer, values[layer.source], states)
                    continue
                if isinstance(layer, SumLayer):
                    values[layer.name] = summed(layer, values)
                    continue
                z = self.preactivation(layer, values)
                if not awake:
                    bias = torch.from_numpy(layer.bias).to(z.dtype)
                    z = z - bias.reshape(1, -1, *([1] * (z.ndim - 2)))
                if layer.activation is None:
                    total[layer.name] = total.get(layer.name, 0) + z
                else:
                    values[layer.name] = self._fire(layer, z, states, awake=awake)
        return {name: (z / schedule.wake_steps).numpy() for name, z in total.items()}

    def _fire(
        self, layer: IntegerLayer, z: Tensor, states: dict[str, Any], *, awake: bool
    ) -> Tensor:
        """Values sent in one step: spikes times the value of a spike of 1."""
        assert layer.activation is not None
        neuron = self.program.population(layer.name).neuron
        lam = _per_channel(spike_value(layer.activation), z)
        assert isinstance(neuron, ThresholdNeuron)
        if layer.name not in states:
            zeros = torch.zeros_like(z)
            states[layer.name] = neuron.start(zeros + lam * self._shift(layer, z), zeros)
        state, spikes = neuron.step(states[layer.name], z, lam, awake)
        states[layer.name] = state
        return spikes * lam

    def _pool_step(self, layer: MaxPoolLayer, sent: Tensor, states: dict[str, Any]) -> Tensor:
        """Value that a max pool sends: the change of its windows' largest sums."""
        summed, largest = states.get(layer.name, (torch.zeros_like(sent), 0))
        summed = summed + sent
        states[layer.name] = (summed, max_pool(layer.pool, summed))
        change: Tensor = states[layer.name][1] - largest
        return change


def _per_channel(values: float | np.ndarray, like: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.array(values, np.float64)).to(like.dtype)
    return tensor.reshape(1, -1, *([1] * (like.ndim - 2)))


def _with_threshold(
    layer: AnyLayer,
    thresholds: Mapping[str, list[float]],
    shifts: Mapping[str, list[float]],
    program: IntProgram,
) -> AnyLayer:
    """The layer with its measured threshold and shift; older files have no shifts."""
    if not isinstance(layer, IntegerLayer) or layer.activation is None:
        return layer
    measured = np.array(thresholds.get(layer.name, ()))
    shift = np.atleast_1d(np.array(shifts.get(layer.name, layer.activation.shift)))
    if not {len(measured), len(shift)} <= {1, layer.shape[0]}:
        raise ProgramError(
            "a measured threshold or shift is damaged in the provenance",
            node=f"{program.name}/{layer.name}",
            found=f"{len(measured)} and {len(shift)} values",
            allowed=f"1 or {layer.shape[0]}, one per channel",
            remedy="convert again",
        )
    return replace(layer, activation=replace(layer.activation, threshold=measured, shift=shift))


def _with_largest_spike(layer: AnyLayer, program: IntProgram) -> AnyLayer:
    """The layer with the largest spike of its population."""
    neuron = program.population(layer.name).neuron
    if not isinstance(neuron, ThresholdNeuron) or not isinstance(layer, IntegerLayer):
        return layer
    assert layer.activation is not None
    return replace(layer, activation=replace(layer.activation, max_spike=neuron.largest_spike))


def summed(layer: SumLayer, values: Mapping[str, Tensor]) -> Tensor:
    """The sum that a `SumLayer` sends, (n, ...)."""
    total = torch.stack([_of_term(term, values[term.source]) for term in layer.terms]).sum(0)
    return total / layer.divisor


def _of_term(term: Term, x: Tensor) -> Tensor:
    if term.identity or not isinstance(term.operation, Conv2d):
        return x
    return correlated(term.operation, x, torch.from_numpy(term.operation.weight.copy()).to(x.dtype))


def _shapes(layers: tuple[AnyLayer, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(layer.name, layer.shape) for layer in layers]
