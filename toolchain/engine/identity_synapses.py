"""Synapses without a convolution: each spike reaches the one neuron at its own position.

The identity of a residual sum is such a synapse, or two that split its weight by exponents.
Its spikes are weighted when the neurons take their current, not in a separate pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.engine.spike_encoding import coded_offset
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse


@dataclass(frozen=True)
class DirectSynapse:
    """All direct synapses of a population from one source.

    Attributes
    ----------
    gain:
        int64 (C,), the weight of a spike with its exponent applied.
    """

    source: str
    gain: np.ndarray


def is_direct(synapse: Synapse) -> bool:
    """Whether neuron (c, y, x) takes spikes from (c, y, x) of its source only."""
    return (
        isinstance(synapse, ConvSynapse)
        and synapse.weight.shape[1:] == (1, 1, 1)
        and len(synapse.weight) == synapse.groups
        and synapse.stride == (1, 1)
        and synapse.padding == (0, 0)
        and synapse.is_even
    )


def part_direct(
    program: IntProgram, population: Population
) -> tuple[DirectSynapse | None, list[ConvSynapse | DenseSynapse]]:
    """The direct synapses of the first source that has some and sends bytes, and all others.

    None if there would be no others: a current from direct synapses alone is summed as usual.
    """
    weighted = [s for s in population.synapses if isinstance(s, ConvSynapse | DenseSynapse)]
    sources = [
        s.source
        for s in weighted
        if is_direct(s) and coded_offset(program.spike_range(s.source)) is not None
    ]
    direct = [s for s in weighted if sources and s.source == sources[0] and is_direct(s)]
    others = [s for s in weighted if not any(s is d for d in direct)]
    if not direct or not others:
        return None, weighted
    gain = np.zeros(len(direct[0].weight), np.int64)
    for synapse in direct:
        gain += synapse.weight[:, 0, 0, 0].astype(np.int64) << synapse.weight_exponent
    return DirectSynapse(sources[0], gain), others
