"""Fan-out of every neuron, exact at the borders, for counting synaptic operations.

A synop is one weight added because of one spike; a graded spike counts once, whatever its
magnitude. Zero weights count, since the synapse exists. A pool's window adds one per spike in it.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from toolchain.errors import ProgramError
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse


@singledispatch
def synapse_fan_out(synapse: object, source_shape: tuple[int, ...]) -> np.ndarray:
    """Number of target neurons per source neuron: int64, `source_shape`.

    Raises ProgramError for an unknown synapse.
    """
    raise ProgramError("no fan-out for this synapse", found=type(synapse).__name__)


@synapse_fan_out.register
def _(synapse: DenseSynapse, source_shape: tuple[int, ...]) -> np.ndarray:
    return np.full(source_shape, synapse.weight.shape[0], np.int64)


@synapse_fan_out.register
def _(synapse: ConvSynapse, source_shape: tuple[int, ...]) -> np.ndarray:
    per_channel = synapse.weight.shape[0] // synapse.groups
    return _covering(synapse, source_shape) * per_channel


@synapse_fan_out.register
def _(synapse: WindowSynapse, source_shape: tuple[int, ...]) -> np.ndarray:
    return _covering(synapse, source_shape)


def _covering(synapse: ConvSynapse | WindowSynapse, source_shape: tuple[int, ...]) -> np.ndarray:
    """Number of kernel positions that cover each source neuron: int64, `source_shape`."""
    per_axis = []
    for axis in range(2):
        met = synapse.met(source_shape, axis)
        per_axis.append(np.bincount(met[met >= 0], minlength=source_shape[1 + axis]))
    plane = np.multiply.outer(per_axis[0], per_axis[1])
    return np.broadcast_to(plane, source_shape).astype(np.int64)


def fan_out(program: IntProgram) -> dict[str, np.ndarray]:
    """Total fan-out of every neuron of the input and of each spiking population: int64, by name."""
    totals = {INPUT: np.zeros(program.input.shape, np.int64)}
    totals |= {p.name: np.zeros(p.shape, np.int64) for p in program.spiking}
    for population in program.populations:
        for synapse in population.synapses:
            shape = program.source_shape(synapse.source)
            totals[synapse.source] += synapse_fan_out(synapse, shape).reshape(shape)
    return totals


def dense_operations(program: IntProgram) -> int:
    """Multiply-adds of one forward pass of the original network, exact at the borders.

    The windows of max pools are excluded, since they only compare; a skip connection counts as a
    multiply-add with its weight in the program.
    """
    return sum(
        int(synapse_fan_out(synapse, program.source_shape(synapse.source)).sum())
        for population in program.populations
        for synapse in population.synapses
        if not isinstance(synapse, WindowSynapse)
    )
