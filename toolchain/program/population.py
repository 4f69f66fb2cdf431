"""A population: the neurons of one layer, with their synapses and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.canonical import frozen_array
from toolchain.program.neurons import Neuron
from toolchain.program.synapse import Synapse

INPUT = "input"
"""Name of the input layer."""


@dataclass(frozen=True, eq=False)
class Population:
    """The neurons of one layer, with their synapses and bias.

    Attributes
    ----------
    name:
        Qualified path of the module that it came from.
    shape:
        (C, H, W) or (F,); channels come first.
    synapses:
        One or more; their currents add. A concatenation is several synapses, each with the weights
        of its own source.
    bias:
        int32, (C,), added on wake steps.
    """

    name: str
    shape: tuple[int, ...]
    synapses: tuple[Synapse, ...]
    bias: np.ndarray
    neuron: Neuron

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", frozen_array(self.bias, np.int32))

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """`values`, (C,), reshaped to broadcast against (N, C, H, W) or (N, F)."""
        return values.reshape((-1, *([1] * (len(self.shape) - 1))))
