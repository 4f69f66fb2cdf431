"""Synapses as lists of connections, neuron by neuron."""

from __future__ import annotations

from functools import singledispatch
from math import prod

import numpy as np

from toolchain.errors import ProgramError
from toolchain.program.synapse import ConvSynapse, DenseSynapse

Connections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Source neurons, target neurons (flattened in C, H, W order) and weights: int64 (E,) each."""


@singledispatch
def connections(synapse: object, source: tuple[int, ...]) -> Connections:
    """All connections of a synapse from a layer of this shape, those of weight 0 too.

    Weights are shifted by the synapse's exponent. Raises ProgramError for an unknown synapse.
    """
    raise ProgramError("no connections for this synapse", found=type(synapse).__name__)


@connections.register
def _(synapse: DenseSynapse, source: tuple[int, ...]) -> Connections:
    targets, sources = np.indices(synapse.weight.shape).reshape(2, -1)
    weight = synapse.weight.astype(np.int64) << synapse.weight_exponent
    return sources, targets, weight.ravel()


@connections.register
def _(synapse: ConvSynapse, source: tuple[int, ...]) -> Connections:
    channels, per_group = synapse.weight.shape[:2]
    rows, columns = (synapse.met(source, axis) for axis in range(2))
    shape = (channels, len(rows), len(columns), per_group, *synapse.kernel)
    out, down, across, inside, tap, along = np.indices(shape).reshape(6, -1)
    row, column = rows[down, tap], columns[across, along]
    kept = (row >= 0) & (column >= 0)
    group = out // (channels // synapse.groups)
    sources = ((group * per_group + inside) * source[1] + row) * source[2] + column
    targets = np.arange(prod(shape[:3])).repeat(prod(shape[3:]))
    weight = synapse.weight.astype(np.int64)[out, inside, tap, along] << synapse.weight_exponent
    return sources[kept], targets[kept], weight[kept]
