"""How long stock synapses take, roughly: so that a run of hours is announced as one."""

from __future__ import annotations

from toolchain.program.int_program import IntProgram
from toolchain.program.synapse import ConvSynapse
from toolchain.program.synops import synapse_fan_out

SECONDS_PER_CHANNEL_PAIR = 9e-6
SECONDS_PER_PRODUCT = 3e-9
"""Stock Conv calls scipy's convolve2d for each pair of an input and an output channel: measured on
one core with 64 -> 64 channels at 32x32 (0.15 s per step) and VGG11 at 32x32 (3.2 s per step)."""
SECONDS_PER_STEP = 2e-3
"""Of Lava's synchronisation, per layer (20 ms per step with ten layers)."""


def stock_seconds(program: IntProgram, num_samples: int) -> float:
    """About how many seconds a run on stock synapses takes."""
    seconds = SECONDS_PER_STEP * len(program.populations)
    for population in program.populations:
        for synapse in population.synapses:
            if isinstance(synapse, ConvSynapse):
                shape = program.source_shape(synapse.source)
                pairs = len(synapse.weight) * synapse.weight.shape[1]
                seconds += SECONDS_PER_CHANNEL_PAIR * pairs
                seconds += SECONDS_PER_PRODUCT * int(synapse_fan_out(synapse, shape).sum())
    return seconds * program.schedule.num_steps * num_samples
