"""Max pools of every geometry against the plain loop, on the simulator and the engine."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.comparing import assert_recording_is, assert_same
from tests.networks import random_inputs
from tests.oracles import numpy_loop
from tests.strategies import pooled_programs
from toolchain.errors import ProgramError
from toolchain.program.synapse import WindowSynapse
from toolchain.program.synops import synapse_fan_out
from toolchain.simulator.reference import simulate


@settings(max_examples=60, deadline=None)
@given(program=pooled_programs(), seed=st.integers(0, 99))
def test_pools_of_every_geometry(program, seed):
    inputs = random_inputs(program, 2, seed)
    assert_recording_is(simulate(program, inputs), *numpy_loop.run(program, inputs))
    for device in (None, torch.device("cpu")):
        assert_same(program, inputs, device=device)


@settings(max_examples=60, deadline=None)
@given(program=pooled_programs())
def test_fan_out_by_counting(program):
    """The windows that cover a place are those in which it is the largest, if all others are 0."""
    (synapse,) = program.population("pool").synapses
    shape = program.source_shape(synapse.source)
    expected = np.zeros(shape, int)
    for place in np.ndindex(*shape):
        alone = np.zeros(shape, int)
        alone[place] = 1
        expected[place] = numpy_loop.largest_in_windows(alone, synapse).sum()
    assert np.array_equal(synapse_fan_out(synapse, shape), expected)


@given(
    begin=st.integers(0, 2),
    overhang=st.integers(-3, 6),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    size=st.integers(1, 7),
)
def test_windows_of_padding_alone_are_refused(begin, overhang, kernel, stride, dilation, size):
    assume(2 * begin <= kernel)
    assume(begin + overhang >= 0)
    padded = size + 2 * begin + overhang
    assume(padded >= dilation * (kernel - 1) + 1)
    starts = range(-begin, padded - begin - dilation * (kernel - 1), stride)
    taps = [[s + dilation * i for i in range(kernel)] for s in starts]
    window = WindowSynapse("x", (kernel, 1), (stride, 1), (begin, 0), (dilation, 1), (overhang, 0))
    if all(any(0 <= tap < size for tap in each) for each in taps):
        assert window.output_shape((3, size, 2)) == (3, len(taps), 2)
        return
    with pytest.raises(ProgramError, match="nothing but padding"):
        window.output_shape((3, size, 2))


def test_an_overhang_is_described_only_where_there_is_one():
    """So hashes of programs without one are those of before."""
    window = WindowSynapse("x", (2, 2), (2, 2))
    assert "overhang" not in window.describe()
    assert replace(window, overhang=(0, 1)).describe()["overhang"] == [0, 1]
