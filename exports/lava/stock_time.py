"""Rough estimate of the time of stock synapses, to announce long runs."""

from __future__ import annotations

from toolchain.program.int_program import IntProgram
from toolchain.program.synapse import ConvSynapse
from toolchain.program.synops import synapse_fan_out

SECONDS_PER_CHANNEL_PAIR = 9e-6
"""Estimated time of stock Conv per pair of an input and an output channel, in seconds.

Stock Conv calls scipy's convolve2d for each pair. `benchmarks/lava_speed.py` measures the models.
"""
SECONDS_PER_PRODUCT = 3e-9
"""Estimated time of stock Conv per product, in seconds."""
SECONDS_PER_STEP = 2e-3
"""Estimated time of Lava's synchronisation per layer and step, in seconds."""


def stock_seconds(program: IntProgram, num_samples: int) -> float:
    """Estimated time of a run on stock synapses, in seconds."""
    seconds = SECONDS_PER_STEP * len(program.populations)
    for population in program.populations:
        for synapse in population.synapses:
            if isinstance(synapse, ConvSynapse):
                plain, shape = synapse.on_plane(program.source_shape(synapse.source))
                pairs = len(plain.weight) * plain.weight.shape[1]
                seconds += SECONDS_PER_CHANNEL_PAIR * pairs
                seconds += SECONDS_PER_PRODUCT * int(synapse_fan_out(plain, shape).sum())
    return seconds * program.schedule.num_steps * num_samples
