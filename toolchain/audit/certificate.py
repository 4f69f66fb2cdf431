"""Proved, observed and constructed extremes of sums and states.

The bound of each population is proved for every input (`toolchain.program.bounds`). It is compared
with the extremes on data, and with those of an input constructed for it, the same on every wake
step: starting from the gradient of the channel with the largest bound, every pixel is set to the
end of its range that drives the channel further. If this attains the bound, the bound is tight;
otherwise the rest is slack, of the bound or of the search. In a large network inputs are
constructed for the populations with the least headroom only, and run through all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.audit.activity import (
    LayerExtremes,
    count_spikes,
    quicker_engine,
    samples_at_once,
)
from toolchain.int_range import IntRange
from toolchain.program.bounds import PopulationBounds, analyse
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import ThresholdNeuron
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse
from toolchain.program.synops import dense_operations
from toolchain.simulator.currents import per_channel
from toolchain.simulator.planes import correlated, seen

ASCENTS = 4
"""Number of gradient steps; the first starts in the middle of the input's range."""
MOST_OPERATIONS = 10**12
"""Multiply-adds that constructed inputs may cost: about a minute on two cores."""
LEAK = 0.1
"""Slope of a saturated activation, so that gradients can pass it."""


@dataclass(frozen=True)
class RangeRow:
    """Extremes of one population: proved, observed on data, and reached by constructed inputs.

    `driven` states whether some inputs were constructed for it.
    """

    bound: PopulationBounds
    observed: LayerExtremes
    reached: LayerExtremes
    driven: bool

    def describe(self, state: IntRange) -> dict[str, Any]:
        """All fields as JSON; a share is relative to the larger side of the bound."""
        return {
            "name": self.bound.name,
            "headroom_bits": self.bound.headroom_bits(state),
            "driven": self.driven,
            "current": _compared(self.bound.current, self.observed.current, self.reached.current),
            "state": _compared(self.bound.state, self.observed.state, self.reached.state),
        }


def _compared(bound: IntRange, observed: IntRange, reached: IntRange) -> dict[str, Any]:
    worst = max(-bound.low, bound.high, 1)
    high_side = bound.high >= -bound.low
    best = max(reached.high, observed.high) if high_side else -min(reached.low, observed.low)
    return {
        "bound": [bound.low, bound.high],
        "observed": [observed.low, observed.high],
        "reached": [reached.low, reached.high],
        "attained": best >= worst,
        "share": best / worst,
    }


def certify(program: IntProgram, observed: Mapping[str, LayerExtremes]) -> list[RangeRow]:
    """Bounds, observed extremes, and those of constructed inputs, by population."""
    bounds = analyse(program)
    driven = _tightest(program, bounds)
    inputs = np.concatenate([driving_inputs(program, bound) for bound in driven])
    reached = {p.name: LayerExtremes() for p in program.populations}
    engine = quicker_engine(program, len(inputs))
    size = samples_at_once(program, engine.samples if engine else len(inputs))
    for start in range(0, len(inputs), size):
        count_spikes(engine, program, inputs[start : start + size], reached)
    return [RangeRow(b, observed[b.name], reached[b.name], b in driven) for b in bounds]


def _tightest(program: IntProgram, bounds: tuple[PopulationBounds, ...]) -> list[PopulationBounds]:
    """As many bounds as `MOST_OPERATIONS` allows, at least one, with the least headroom first."""
    each = 2 * ASCENTS * program.schedule.num_steps * dense_operations(program)
    most = max(1, MOST_OPERATIONS // each)
    return sorted(bounds, key=lambda b: b.headroom_bits(program.state_range))[:most]


def driving_inputs(program: IntProgram, bound: PopulationBounds) -> np.ndarray:
    """Graded spikes that drive the worst channel up and down.

    Returns
    -------
    int64 (2 * ASCENTS, *sample_shape); a sequence is the same on each step.
    """
    low, high = program.input.range.low, program.input.range.high
    found = []
    for sign in (1.0, -1.0):
        x = torch.full((1, *program.input.shape), (low + high) / 2, dtype=torch.float32)
        for _ in range(ASCENTS):
            x.requires_grad_(True)
            with torch.enable_grad():
                drive = _middle(_drive(program, x, bound.name), bound.channel)
                (gradient,) = torch.autograd.grad(sign * drive, x)
            x = torch.where(gradient > 0, float(high), float(low))
            found.append(x)
    inputs = torch.cat(found).to(torch.int64).numpy()
    if not program.input.per_step:
        return inputs
    return np.broadcast_to(inputs[:, None], (len(inputs), *program.sample_shape))


def _middle(current: Tensor, channel: int) -> Tensor:
    """The neuron in the middle of the plane, whose kernel lies inside the plane if any does."""
    values = current[0, channel]
    return values[values.shape[0] // 2, values.shape[1] // 2] if values.ndim == 2 else values


def _drive(program: IntProgram, x: Tensor, until: str) -> Tensor:
    """Current into the population `until` for real inputs (1, ...), with rates as spikes."""
    rates = {INPUT: x}
    for population in program.populations:
        current = _current(population, rates)
        if population.name == until:
            return current
        rates[population.name] = _rate(population, current)
    raise KeyError(until)


def _current(population: Population, rates: Mapping[str, Tensor]) -> Tensor:
    total: Tensor | None = None
    for synapse in population.synapses:
        rate = rates[synapse.source]
        if isinstance(synapse, WindowSynapse):
            padded = seen(synapse, rate)
            return F.max_pool2d(padded, synapse.kernel, synapse.stride, 0, synapse.dilation)
        one = _weighted(synapse, rate) * 2.0**synapse.weight_exponent
        total = one if total is None else total + one
    assert total is not None
    return total


def _weighted(synapse: ConvSynapse | DenseSynapse, rate: Tensor) -> Tensor:
    weight = torch.from_numpy(synapse.weight.astype(np.float32))
    if isinstance(synapse, DenseSynapse):
        return F.linear(rate.flatten(1), weight)
    return correlated(synapse, rate, weight)


def _rate(population: Population, current: Tensor) -> Tensor:
    neuron = population.neuron
    if not isinstance(neuron, ThresholdNeuron):
        return current
    drive = current + per_channel(population, population.bias)
    rate = (drive / per_channel(population, neuron.threshold)).float()
    sent = rate.clamp(0, neuron.largest_spike)
    return sent + LEAK * (rate - sent)
