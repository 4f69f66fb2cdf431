"""Error budget: terms that add up to each layer's error, neuron by neuron.

For a layer with threshold lam, everything in units of lam and per step, let z be the float
pre-activation for what the layer *really* received (counts of its sources over T, times the value
of a spike), z_ann the one in the float network, and X the integers that it summed. Then

    propagated    f(z_real) - f(z_ann)   the input differs from that of the float network
    input         f(z) - f(z_real)       the input was rounded to graded spikes
    clipping      clip(z) - f(z)         0 if the network was trained with its thresholds
    quantization  q(z) - clip(z)         only multiples of 1 / T can be sent
    rounding      q(X) - q(z)            integer weights, biases and start
    unevenness    counts / T - q(X)      spikes that came too early, too late, or not in time

with z_real equal to z, except that the input is not quantized (the two differ in layers that take
the input only), f the activation of the float network (clip for trained thresholds, ReLU for
measured ones), clip(z) = min(max(z, 0), 1) and q the levels that a spiking neuron reaches when its
input comes evenly: floor(T z + 1/2) / T within 0 .. 1. Of graded IF neurons, whose largest spike is
K, T stands for K T here. They add up to counts / T - f(z_ann), the
layer's error against the float network. A readout, in logits, has propagated, input and rounding
only.

Unevenness is the residual error of Theorem 1 (Huang et al., IEEE TNNLS 2025): it is 0 if the
membrane potential ends within 0 .. theta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.audit.activity import BatchCounts
from toolchain.audit.source_network import Acts, SourceNetwork
from toolchain.conversion.passes.layers import IntegerLayer
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import Readout, ThresholdNeuron
from toolchain.program.synapse import WindowSynapse
from toolchain.simulator.currents import per_channel, synaptic_current
from toolchain.simulator.quantized_network import even_counts

TERMS = ("propagated", "input", "clipping", "quantization", "rounding", "unevenness")
READOUT_TERMS = ("propagated", "input", "rounding")


@dataclass
class Moments:
    """Sums over all neurons and samples, accumulated batch by batch."""

    count: int = 0
    total: float = 0.0
    magnitude: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        """Add float64 values of any shape."""
        self.count += values.numel()
        self.total += float(values.sum())
        self.magnitude += float(values.abs().sum())
        self.squares += float((values * values).sum())

    def describe(self) -> dict[str, float]:
        """Mean, mean magnitude and root mean square, as JSON."""
        n = max(self.count, 1)
        return {
            "mean": self.total / n,
            "mean_magnitude": self.magnitude / n,
            "rms": float(np.sqrt(self.squares / n)),
        }


@dataclass
class LayerBudget:
    """The error of one layer.

    Attributes
    ----------
    unit:
        "lam" (thresholds, per step) or "logits".
    terms:
        Moments of each term by name, in the order in which they add up.
    total:
        Moments of the layer's error against the float network.
    unexplained:
        Largest magnitude of `total` less all terms, over all neurons: float64 rounding.
    too_many, too_few:
        Number of neurons that sent more or fewer spikes than for an even input.
    below, above:
        Number of neurons whose membrane potential ends below 0 or above theta: the theorem's
        condition does not hold. Neurons without any reason to fire also end below 0.
    """

    name: str
    unit: str
    terms: dict[str, Moments]
    total: Moments = field(default_factory=Moments)
    unexplained: float = 0.0
    neurons: int = 0
    too_many: int = 0
    too_few: int = 0
    below: int = 0
    above: int = 0

    def add(self, parts: Mapping[str, Tensor], total: Tensor) -> None:
        """Add a batch: values of each term and of the total, (n, ...) each."""
        for name, values in parts.items():
            self.terms[name].add(values)
        self.total.add(total)
        rest = total - sum(parts.values(), start=torch.zeros_like(total))
        self.unexplained = max(self.unexplained, float(rest.abs().max()))

    def describe(self) -> dict[str, Any]:
        """All fields as JSON; shares are of all neurons of all samples."""
        shares: dict[str, Any] = {}
        if self.unit == "lam":
            n = max(self.neurons, 1)
            shares = {
                "too_many": self.too_many / n,
                "too_few": self.too_few / n,
                "below": self.below / n,
                "above": self.above / n,
            }
        return {
            "name": self.name,
            "unit": self.unit,
            "total": self.total.describe(),
            "terms": {name: moments.describe() for name, moments in self.terms.items()},
            "unexplained": self.unexplained,
            **shares,
        }


class Budget:
    """The error budgets of all layers with weights, over all added batches."""

    def __init__(self, network: SourceNetwork) -> None:
        self._network = network
        self.layers: dict[str, LayerBudget] = {}
        for layer in self._weighted():
            readout = layer.activation is None
            names = READOUT_TERMS if readout else TERMS
            unit = "logits" if readout else "lam"
            self.layers[layer.name] = LayerBudget(layer.name, unit, {n: Moments() for n in names})

    def _weighted(self) -> list[IntegerLayer]:
        return [layer for layer in self._network.layers if isinstance(layer, IntegerLayer)]

    @torch.no_grad()
    def add(self, inputs: np.ndarray, samples: np.ndarray, found: BatchCounts) -> None:
        """Add a batch.

        Parameters
        ----------
        inputs:
            Graded input spikes, int (n, *sample_shape).
        samples:
            The samples before quantization, normalised: float (n, ...), of sequences their means.
        found:
            Activity of the integer network on them.
        """
        network, program = self._network, self._network.program
        plain = Acts.RELU if network.measured else Acts.CLIPPED
        ideal = network.forward(torch.from_numpy(samples).double(), plain)
        steps = program.schedule.wake_steps
        counts = {INPUT: program.input_counts(inputs), **found.counts}
        received = {name: self._worth(name, sent, steps) for name, sent in counts.items()}
        for layer in self._weighted():
            population, budget = program.population(layer.name), self.layers[layer.name]
            z = network.preactivation(layer, received)
            z_real = z
            if any(term.source == INPUT for term in layer.terms):
                z_real = network.preactivation(layer, {**received, INPUT: ideal[INPUT]})
            even = _even(program, population, counts)
            if layer.activation is None:
                self._readout(population, z, z_real, ideal[layer.name], even / steps)
                continue
            fired = torch.from_numpy(counts[layer.name])
            most = steps * layer.activation.max_spike
            sent = fired.double() / most
            wanted = ideal[layer.name] / network.threshold(layer, z)
            plainly = network.activated(layer, z, plain)
            clipped = network.activated(layer, z, Acts.CLIPPED)
            levels = network.activated(layer, z, Acts.QUANTIZED)
            arrived = network.activated(layer, z_real, plain)
            parts = {
                "propagated": arrived - wanted,
                "input": plainly - arrived,
                "clipping": clipped - plainly,
                "quantization": levels - clipped,
                "rounding": even / most - levels,
                "unevenness": sent - even / most,
            }
            budget.add(parts, sent - wanted)
            self._count(budget, population, fired, even, found.potential[layer.name])

    def _worth(self, name: str, counts: np.ndarray, steps: int) -> Tensor:
        """Real values (n, ...) of counts over `steps` steps."""
        sent = torch.from_numpy(counts).double() / steps
        value = torch.from_numpy(np.array(self._network.spikes[name].value, np.float64))
        return sent * value.reshape(1, -1, *([1] * (sent.ndim - 2)))

    def _readout(
        self, population: Population, z: Tensor, z_real: Tensor, ideal: Tensor, summed: Tensor
    ) -> None:
        neuron = population.neuron
        assert isinstance(neuron, Readout)
        given = neuron.scale * summed
        parts = {"propagated": z_real - ideal, "input": z - z_real, "rounding": given - z}
        self.layers[population.name].add(parts, given - ideal)

    def _count(
        self,
        budget: LayerBudget,
        population: Population,
        fired: Tensor,
        even: Tensor,
        potential: np.ndarray,
    ) -> None:
        neuron = population.neuron
        assert isinstance(neuron, ThresholdNeuron)
        left = torch.from_numpy(potential)
        budget.neurons += fired.numel()
        budget.too_many += int((fired > even).sum())
        budget.too_few += int((fired < even).sum())
        budget.below += int((left < 0).sum())
        budget.above += int((left > per_channel(population, neuron.threshold)).sum())


def _even(program: IntProgram, population: Population, counts: Mapping[str, np.ndarray]) -> Tensor:
    """Counts, or the readout's sum, for an even input: float64 (n, ...)."""
    total = torch.zeros(1, dtype=torch.int64)
    for synapse in population.synapses:
        assert not isinstance(synapse, WindowSynapse)
        sent = torch.from_numpy(counts[synapse.source])
        total = total + synaptic_current(synapse, sent, torch.float64)
    return even_counts(population, total, program.schedule.wake_steps).double()
