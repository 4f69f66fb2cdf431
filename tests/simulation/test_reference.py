"""The reference simulator against hand-computed steps and a plain NumPy loop."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.comparing import assert_recording_is
from tests.networks import fits, random_inputs, random_program
from tests.oracles import numpy_loop
from tests.strategies import KINDS, convolutions
from toolchain.errors import ProgramError, ValueRangeError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    Readout,
)
from toolchain.program.synapse import DenseSynapse
from toolchain.recording import Mode
from toolchain.simulator.reference import simulate


def chain(neuron, weight, bias, schedule, state_bits=24):
    """One neuron fed by the input with `weight` and `bias`, then a readout of weight 1."""
    return IntProgram(
        "one",
        InputQuantizer((1,), 1.0),
        (
            Population("cell", (1,), (DenseSynapse("input", [[weight]]),), [bias], neuron),
            Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0)),
        ),
        schedule,
        state_bits=state_bits,
    )


def test_if_by_hand():
    # theta 10, v0 5, current 3 * 2 + 1 = 7 per step:
    # v = 12 -> spike, 2; 9 -> none; 16 -> spike, 6; 13 -> spike, 3
    program = chain(IntegrateAndFire([10], [5]), 3, 1, Schedule(4))
    recording = simulate(program, np.array([[2]]))
    assert recording.spikes["cell"].ravel().tolist() == [1, 0, 1, 1]
    assert recording.membrane["cell"].ravel().tolist() == [2, 9, 6, 3]
    assert recording.logits.tolist() == [[3]]


def test_if_fires_at_the_threshold_itself():
    program = chain(IntegrateAndFire([10], [0]), 10, 0, Schedule(1))
    assert simulate(program, np.array([[1]])).spikes["cell"].ravel().tolist() == [1]
    assert simulate(program, np.array([[0]])).spikes["cell"].ravel().tolist() == [0]


def test_graded_if_by_hand():
    # theta 10, v0 5, at most 3, current 3 * 9 + 1 = 28 per step:
    # v = 33 -> 3, 3; 31 -> 3, 1; 29 -> 2, 9; 37 -> 3, 7
    program = chain(GradedIntegrateAndFire([10], [5], 3), 3, 1, Schedule(4))
    recording = simulate(program, np.array([[9]]))
    assert recording.spikes["cell"].ravel().tolist() == [3, 3, 2, 3]
    assert recording.membrane["cell"].ravel().tolist() == [3, 1, 9, 7]
    assert recording.logits.tolist() == [[11]]


def test_graded_if_keeps_what_is_beyond_its_largest_spike():
    # theta 10, v0 0: 57 -> 4, 17; 74 -> 4, 34; below 0 it sends nothing.
    program = chain(GradedIntegrateAndFire([10], [0], 4), 57, 0, Schedule(2))
    recording = simulate(program, np.array([[1]]))
    assert recording.spikes["cell"].ravel().tolist() == [4, 4]
    assert recording.membrane["cell"].ravel().tolist() == [17, 34]
    program = chain(GradedIntegrateAndFire([10], [5], 4), -8, 0, Schedule(2))
    recording = simulate(program, np.array([[1]]))
    assert recording.spikes["cell"].ravel().tolist() == [0, 0]
    assert recording.membrane["cell"].ravel().tolist() == [-3, -11]


@pytest.mark.parametrize("largest", [0, 1, 128])
def test_largest_spikes_out_of_range(largest):
    with pytest.raises(ProgramError, match=rf"(?s)out of range.*found: +{largest}\n.*2 \.\. 127"):
        GradedIntegrateAndFire([10], [5], largest)


def test_if_goes_below_zero_without_reset():
    program = chain(IntegrateAndFire([10], [5]), -4, 0, Schedule(3))
    recording = simulate(program, np.array([[2]]))
    assert recording.membrane["cell"].ravel().tolist() == [-3, -11, -19]


def test_cif_sleeps_off_what_is_left():
    # theta 10, v0 0, current 14 a wake step: 14 -> spike, 4; 18 -> spike, 8; then asleep:
    # the cap of two spikes for two wake steps holds 8 back.
    program = chain(ConsistentIntegrateAndFire([10], [0]), 14, 0, Schedule(2, 2))
    recording = simulate(program, np.array([[1]]))
    assert recording.spikes["cell"].ravel().tolist() == [1, 1, 0, 0]
    assert recording.membrane["cell"].ravel().tolist() == [4, 8, 8, 8]


def test_cif_takes_a_spike_back():
    # The first neuron fires once (20 >= 20), so the second gets +10 and fires; bias -6 on both
    # wake steps brings it to 10 - 6 = 4 -> below 10: none; v0 9: 9 + 10 - 6 = 13 -> spike, 3;
    # 3 - 6 = -3 -> takes the spike back, 7.
    first = Population(
        "first",
        (1,),
        (DenseSynapse("input", [[20]]),),
        [-10],
        ConsistentIntegrateAndFire([20], [10]),
    )
    second = Population(
        "second",
        (1,),
        (DenseSynapse("first", [[10]]),),
        [-6],
        ConsistentIntegrateAndFire([10], [9]),
    )
    readout = Population("readout", (1,), (DenseSynapse("second", [[5]]),), [0], Readout(1.0))
    program = IntProgram("two", InputQuantizer((1,), 1.0), (first, second, readout), Schedule(2, 1))
    recording = simulate(program, np.array([[1]]))
    # first: 10 + 20 - 10 = 20 -> spike, 0; 0 + 10 = 10 -> none; asleep: none.
    assert recording.spikes["first"].ravel().tolist() == [1, 0, 0]
    assert recording.membrane["first"].ravel().tolist() == [0, 10, 10]
    assert recording.spikes["second"].ravel().tolist() == [1, -1, 0]
    assert recording.membrane["second"].ravel().tolist() == [3, 7, 7]
    assert recording.membrane["readout"].ravel().tolist() == [5, 0, 0]


def test_bias_and_input_are_off_asleep():
    program = chain(ConsistentIntegrateAndFire([1000], [0]), 3, 2, Schedule(2, 3))
    recording = simulate(program, np.array([[1]]))
    assert recording.membrane["cell"].ravel().tolist() == [5, 10, 10, 10, 10]


def test_a_state_that_leaves_its_range_is_an_error():
    program = chain(IntegrateAndFire([100], [0]), -100, 0, Schedule(2), state_bits=8)
    with pytest.raises(ValueRangeError, match=r"cell: the membrane potential left its range"):
        simulate(program, np.array([[1]]))


def test_inputs_are_checked():
    program = chain(IntegrateAndFire([10], [0]), 1, 0, Schedule(1))
    with pytest.raises(ValueRangeError, match="input: 1 of 1 values lie outside"):
        simulate(program, np.array([[256]]))
    with pytest.raises(ProgramError, match="inputs do not fit"):
        simulate(program, np.zeros((1, 2), int))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    convs=convolutions((2, 4)),
    hidden=st.lists(st.integers(1, 5), max_size=2),
    wake=st.integers(1, 4),
    sleep=st.integers(0, 3),
    signed=st.booleans(),
    span=st.sampled_from([(-128, 127), (-3, 0), (0, 5), (0, 0), (-1, 1)]),
)
def test_agrees_with_a_plain_loop(seed, kind, convs, hidden, wake, sleep, signed, span):
    assume(fits((2, 7, 6), convs))
    program = random_program(
        seed,
        kind,
        shape=(2, 7, 6),
        convs=convs,
        hidden=hidden,
        schedule=Schedule(wake, sleep),
        signed_input=signed,
        low=span[0],
        high=span[1],
    )
    inputs = random_inputs(program, 3, seed)
    assert_recording_is(simulate(program, inputs, batch=2), *numpy_loop.run(program, inputs))


def test_modes_agree():
    program = random_program(5, "cif", schedule=Schedule(3, 2))
    inputs = random_inputs(program, 5)
    full = simulate(program, inputs, mode=Mode.FULL, batch=2)
    counts = simulate(program, inputs, mode=Mode.COUNTS, batch=5)
    digest = simulate(program, inputs, mode=Mode.DIGEST, batch=3)
    for layer in full.counts:
        assert np.array_equal(full.counts[layer], counts.counts[layer])
    for layer in full.layers:
        assert np.array_equal(full.digests[layer], digest.digests[layer])
    assert not counts.spikes
    assert not digest.counts
    assert np.array_equal(full.logits, digest.logits)
    assert full.meta["synops"] == digest.meta["synops"]


def test_synops_by_counting_connections():
    program = random_program(
        3, shape=(2, 5, 4), convs=((4, 3, 2, 1, 1, 2),), hidden=(), schedule=Schedule(2)
    )
    inputs = random_inputs(program, 2)
    recording = simulate(program, inputs)
    conv, readout = program.populations
    targets = np.zeros(program.input.shape, int)
    height, width = conv.shape[1:]
    for channel in range(4):
        for row in range(height):
            for column in range(width):
                for c in range(2):
                    if c != channel // 2:
                        continue
                    for i in range(3):
                        for j in range(3):
                            y, x = 2 * row + i - 1, 2 * column + j - 1
                            if 0 <= y < 5 and 0 <= x < 4:
                                targets[c, y, x] += 1
    assert recording.meta["synops"]["input"] == 2 * int(((inputs != 0) * targets).sum())
    fired = int(recording.spikes["conv0"].sum())
    assert recording.meta["synops"]["conv0"] == fired * readout.shape[0]
