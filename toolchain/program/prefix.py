"""The smallest part of a program that still computes one layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import Readout
from toolchain.program.synapse import DenseSynapse

READOUT = "readout"


def prefix(program: IntProgram, layer: str, neuron: int = 0) -> IntProgram:
    """The program cut off after `layer`: that layer and all layers it depends on.

    A program ends in a readout, so a spiking layer gets one: a single accumulator that counts
    the spikes of one of its neurons.

    Parameters
    ----------
    neuron:
        Index into the layer's neurons in C, H, W order.

    Raises
    ------
    KeyError
        If there is no such layer.
    """
    needed = {layer}
    kept: list[Population] = []
    _ = program.population(layer)
    for population in reversed(program.populations):
        if population.name in needed:
            needed |= {synapse.source for synapse in population.synapses}
            kept.insert(0, population)
    if not isinstance(kept[-1].neuron, Readout):
        kept.append(_count_one(kept[-1], neuron, {p.name for p in kept}))
    return replace(program, name=f"{program.name}-to-{layer}", populations=tuple(kept))


def _count_one(source: Population, neuron: int, taken: set[str]) -> Population:
    weight = np.zeros((1, int(np.prod(source.shape))), np.int32)
    weight[0, neuron] = 1
    name = READOUT
    while name in taken:
        name += "_"
    return Population(
        name, (1,), (DenseSynapse(source.name, weight),), np.zeros(1, np.int32), Readout(1.0)
    )
