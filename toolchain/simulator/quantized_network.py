"""The quantized network that corresponds to an integer program, without time.

A spiking population sends `N = clip(floor((v0 + X) / theta), 0, Q)` with X the weighted counts of
its sources plus Q times its bias; the input counts its graded spikes of all wake steps. Settled
CIF neurons reach these counts exactly (docs/METHODS.md, "Settled CIF is lossless"), and IF neurons
approximate them.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from toolchain.int_range import IntRange
from toolchain.program.count_growth import count_growths
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import Readout
from toolchain.simulator.currents import ExactCurrent, per_channel


@torch.no_grad()
def quantized_counts(
    program: IntProgram, inputs: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Counts int64 (N, ...) by spiking population, and sums int64 (N, ...) by readout.

    Parameters
    ----------
    inputs:
        Graded input spikes, int (N, *sample_shape).

    Raises
    ------
    ProgramError, ValueRangeError
        If the inputs do not fit the program.
    """
    program.check_inputs(inputs)
    wake, growths = program.schedule.wake_steps, count_growths(program)
    counts = {INPUT: torch.from_numpy(program.input_counts(inputs))}
    outputs: dict[str, np.ndarray] = {}
    for population in program.populations:
        total = torch.zeros(1, dtype=torch.int64)
        for synapse in population.synapses:
            reach = growths[synapse.source].after(program.schedule.num_steps, wake)
            reach = IntRange(min(reach.low, 0), max(reach.high, 0))
            total = total + ExactCurrent(population.name, synapse, reach)(counts[synapse.source])
        value = even_counts(population, total, wake)
        if isinstance(population.neuron, Readout):
            outputs[population.name] = value.numpy()
        else:
            counts[population.name] = value
    return {p.name: counts[p.name].numpy() for p in program.spiking}, outputs


def even_counts(population: Population, total: Tensor, wake: int) -> Tensor:
    """Result of a population for an even input: counts, or a readout's sum, int64 (n, ...).

    `total` is the summed current of all steps without bias, int64 (n, ...).
    """
    if population.bias.any():
        total = total + wake * per_channel(population, population.bias)
    found: Tensor = population.neuron.settled(total, wake, partial(per_channel, population))
    return found
