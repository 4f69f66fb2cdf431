"""Value of one spike of each layer in the float network, and the largest graded spike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from toolchain.conversion.passes.layers import (
    AnyLayer,
    MaxPoolLayer,
    SumLayer,
    Term,
    channels_read,
)
from toolchain.errors import ConversionError
from toolchain.program.float_program import Activation, Conv2d, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import INPUT


@dataclass(frozen=True, eq=False)
class Spikes:
    """The spikes of one layer.

    Attributes
    ----------
    value:
        Real value of one unit, (1,) or (C,).
    largest:
        Largest magnitude of a graded spike.
    taps:
        Number of spikes that a graded spike sums.
    constant:
        Whether they are the same for any input.
    """

    value: np.ndarray
    largest: int
    taps: int = 1
    constant: bool = False


def spike_value(activation: Activation) -> np.ndarray:
    """Real value of a spike of 1, float64, (1,) or (C,)."""
    return activation.threshold / activation.max_spike


def with_largest_spike(program: FloatProgram, most: int) -> FloatProgram:
    """`program` with activations whose largest graded spike is `most`, but for constant ones."""
    if most == 1:
        return program
    nodes = (
        replace(n, max_spike=most) if isinstance(n, Activation) and not n.is_constant else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(nodes))


def spikes_of(layers: Iterable[AnyLayer], quantizer: InputQuantizer) -> dict[str, Spikes]:
    """The spikes of each layer and of the input, by name; readouts send none.

    Max pools keep the spikes of their source. A sum's summands have equal values; its own are those
    over its divisor.

    Raises
    ------
    ConversionError
        If the summands of a sum have different values.
    """
    largest_input = max(abs(quantizer.range.low), abs(quantizer.range.high))
    spikes = {INPUT: Spikes(np.array([quantizer.scale]), largest_input)}
    for layer in layers:
        if isinstance(layer, MaxPoolLayer):
            spikes[layer.name] = spikes[layer.source]
        elif isinstance(layer, SumLayer):
            spikes[layer.name] = _of_sum(layer, {t.source: spikes[t.source] for t in layer.terms})
        elif layer.activation is not None:
            activation = layer.activation
            spikes[layer.name] = Spikes(
                spike_value(activation), activation.max_spike, constant=activation.is_constant
            )
    return spikes


def _of_sum(layer: SumLayer, spikes: Mapping[str, Spikes]) -> Spikes:
    value, *others = (_read(term, spikes[term.source].value) for term in layer.terms)
    if any((other != value).any() for other in others):
        raise ConversionError(
            "spikes that are worth different values cannot be passed on as one",
            node=layer.name,
            found=", ".join(spikes),
        )
    return Spikes(
        value / layer.divisor,
        layer.most({name: s.largest for name, s in spikes.items()}),
        layer.most({name: s.taps for name, s in spikes.items()}, count=True),
        all(s.constant for s in spikes.values()),
    )


def _read(term: Term, values: np.ndarray) -> np.ndarray:
    """Values of the spikes that each output channel of a term reads, (C,), or (1,) if all equal."""
    if len(values) == 1 or not isinstance(term.operation, Conv2d):
        return values
    return values[channels_read(term.operation)]
