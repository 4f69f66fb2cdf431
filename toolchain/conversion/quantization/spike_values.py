"""Value of one spike of each layer in the float network, and the largest graded spike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from toolchain.conversion.passes.layers import AnyLayer, IntegerPoolLayer, SumLayer, copied_channels
from toolchain.errors import ConversionError
from toolchain.program.float_program import MaxPool2d
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


def spikes_of(layers: Iterable[AnyLayer], quantizer: InputQuantizer) -> dict[str, Spikes]:
    """The spikes of each layer and of the input, by name; readouts send none.

    Max pools, upsamplings and crops keep the spike values of their source; those of a sum pool are
    lam / k^2. The summands of a sum have equal values.

    Raises
    ------
    ConversionError
        If the summands of a sum have different values.
    """
    largest_input = max(abs(quantizer.range.low), abs(quantizer.range.high))
    spikes = {INPUT: Spikes(np.array([quantizer.scale]), largest_input)}
    for layer in layers:
        if isinstance(layer, IntegerPoolLayer):
            source, area = spikes[layer.source], prod(layer.pool.kernel)
            channels = copied_channels(layer.pool)
            if isinstance(layer.pool, MaxPool2d):
                spikes[layer.name] = source
            elif channels is not None:
                value = source.value if len(source.value) == 1 else source.value[channels]
                spikes[layer.name] = replace(source, value=value)
            else:
                value = source.value / area
                spikes[layer.name] = Spikes(value, source.largest * area, source.taps * area)
        elif isinstance(layer, SumLayer):
            summed = [spikes[source] for source in layer.sources]
            largest, taps = sum(s.largest for s in summed), sum(s.taps for s in summed)
            if any((s.value != summed[0].value).any() for s in summed):
                raise ConversionError(
                    "spikes that are worth different values cannot be passed on as one",
                    node=layer.name,
                    found=", ".join(layer.sources),
                )
            spikes[layer.name] = Spikes(summed[0].value, largest, taps)
        elif layer.activation is not None:
            activation = layer.activation
            spikes[layer.name] = Spikes(activation.threshold, 1, constant=activation.is_constant)
    return spikes
