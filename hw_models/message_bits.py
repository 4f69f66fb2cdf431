"""Width of the messages that carry spikes between Lava processes."""

from __future__ import annotations

from toolchain.int_range import IntRange


def message_bits(spikes: IntRange) -> int:
    """`num_message_bits` for spikes in this range, the sign included; 0 for unary ones.

    With 0, stock synapses treat every nonzero spike as 1, so -1 needs more.
    """
    if spikes.low >= 0 and spikes.high <= 1:
        return 0
    if spikes.low >= 0:
        return spikes.high.bit_length()
    return 1 + max((-spikes.low - 1).bit_length(), spikes.high.bit_length())
