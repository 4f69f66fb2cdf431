"""Exact comparison of recordings with plain arrays."""

import numpy as np

from tests.oracles import closed_form
from toolchain.engine.engine import Detail, Engine
from toolchain.recording import Mode
from toolchain.simulator.reference import simulate


def assert_recording_is(recording, spikes, membrane, inputs=None):
    """Every spike and membrane potential of `recording` equals the oracle's."""
    for layer in recording.layers:
        assert np.array_equal(recording.membrane[layer], membrane[layer]), layer
        if layer in recording.spikes:
            assert np.array_equal(recording.spikes[layer], spikes[layer]), layer
            assert np.array_equal(recording.counts[layer], spikes[layer].sum(0)), layer
    for name, output in recording.outputs.items():
        assert np.array_equal(output, membrane[name][-1])


def assert_same(program, inputs, block=None, device=None):
    """Every spike and potential of every step of the engine is the reference simulator's."""
    expected = simulate(program, inputs, mode=Mode.FULL)
    blocks = list(Engine(program, block=block, device=device).run(inputs, Detail.EVERYTHING))
    for name, membrane in expected.membrane.items():
        found = np.concatenate([b.membrane[name] for b in blocks])
        assert np.array_equal(found, membrane), name
    for name, spikes in expected.spikes.items():
        found = np.concatenate([b.spikes[name] for b in blocks])
        assert found.dtype == np.int8
        assert np.array_equal(found, spikes), name
    readout = np.concatenate([b.readout for b in blocks])
    assert np.array_equal(readout, expected.membrane[program.readout.name])


def assert_lossless(program, inputs, recording):
    assert sum(recording.meta["unsettled"].values()) == 0
    for index, sample in enumerate(inputs):
        counts, logits = closed_form.counts_and_logits(program, sample)
        for layer, array in recording.counts.items():
            assert np.array_equal(array[index], counts[layer]), (layer, index)
        assert np.array_equal(recording.logits[index], logits), index
