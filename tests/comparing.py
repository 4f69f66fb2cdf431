"""Exact comparison of recordings with plain arrays."""

import numpy as np


def assert_recording_is(recording, spikes, membrane, inputs=None):
    """Every spike and membrane potential of `recording` equals the oracle's."""
    for layer in recording.layers:
        assert np.array_equal(recording.membrane[layer], membrane[layer]), layer
        if layer in recording.spikes:
            assert np.array_equal(recording.spikes[layer], spikes[layer]), layer
            assert np.array_equal(recording.counts[layer], spikes[layer].sum(0)), layer
    for name, output in recording.outputs.items():
        assert np.array_equal(output, membrane[name][-1])
