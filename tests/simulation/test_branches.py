"""Branched programs on the reference simulator: by hand, by a plain loop, by the closed form."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comparing import assert_lossless, assert_recording_is
from tests.networks import BLOCKS, Branches, branched_program, random_inputs
from tests.oracles import numpy_loop
from tests.strategies import KINDS
from toolchain.errors import ProgramError, UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse
from toolchain.program.count_growth import count_growths
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    CountGrowth,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse
from toolchain.program.synops import dense_operations, fan_out
from toolchain.recording import compare
from toolchain.simulator import currents
from toolchain.simulator.reference import simulate

SOME_BLOCKS = st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3)


def pooled(neuron, weight, bias, schedule):
    """Two pixels, each to one neuron by `weight` and `bias`, pooled to one, read with weight 1."""
    return IntProgram(
        "pooled",
        InputQuantizer((1, 1, 2), 1.0, bits=4, signed=True),
        (
            Population("cells", (1, 1, 2), (ConvSynapse("input", [[[[weight]]]]),), [bias], neuron),
            Population("pool", (1, 1, 1), (WindowSynapse("cells", (1, 2), (1, 2)),), [0], LIPool()),
            Population("readout", (1,), (DenseSynapse("pool", [[1]]),), [0], Readout(1.0)),
        ),
        schedule,
    )


def test_lipool_by_hand_behind_if():
    # theta 10, v0 0. Pixel of 4: 4, 8, 12 -> spike, 2; 6; 10 -> spike, 0.
    # Pixel of 3: 3, 6, 9, 12 -> spike, 2; 5.
    # Counts 0 0 1 1 2 and 0 0 0 1 1; largest 0 0 1 1 2.
    program = pooled(IntegrateAndFire([10], [0]), 1, 0, Schedule(5))
    recording = simulate(program, np.array([[[[4, 3]]]]))
    assert recording.spikes["cells"].reshape(5, 2).T.tolist() == [[0, 0, 1, 0, 1], [0, 0, 0, 1, 0]]
    assert recording.spikes["pool"].ravel().tolist() == [0, 0, 1, 0, 1]
    assert recording.membrane["pool"].ravel().tolist() == [0, 0, 1, 1, 2]
    assert recording.logits.tolist() == [[2]]


def test_lipool_channels_are_pooled_apart():
    # theta 10, v0 0 and 9, current 5: spikes at steps 2 4 and at 1 3 5.
    cells = Population(
        "cells",
        (2, 1, 1),
        (ConvSynapse("input", [[[[5]]], [[[5]]]]),),
        [0, 0],
        IntegrateAndFire([10, 10], [0, 9]),
    )
    window = WindowSynapse("cells", (1, 1), (1, 1))
    pool = Population("pool", (2, 1, 1), (window,), [0, 0], LIPool())
    readout = Population("readout", (1,), (DenseSynapse("pool", [[1, 1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1, 1, 1), 1.0, bits=2)
    program = IntProgram("apart", quantizer, (cells, pool, readout), Schedule(5))
    sent = simulate(program, np.array([[[[1]]]])).spikes["pool"]
    assert sent.reshape(5, 2).T.tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]


def test_lipool_sends_one_where_inputs_take_turns():
    # Pixels of 4 and 6, theta 10: 4 8 12 6 10 fires at 3 and 5, 6 12 8 14 10 at 2, 4 and 5.
    # Counts 0 0 1 1 2 and 0 1 1 2 3, the largest 0 1 1 2 3.
    program = pooled(IntegrateAndFire([10], [0]), 1, 0, Schedule(5))
    recording = simulate(program, np.array([[[[4, 6]]]]))
    assert recording.spikes["cells"].reshape(5, 2).T.tolist() == [[0, 0, 1, 0, 1], [0, 1, 0, 1, 1]]
    assert recording.spikes["pool"].ravel().tolist() == [0, 1, 0, 1, 1]
    assert recording.membrane["pool"].ravel().tolist() == [0, 1, 1, 2, 3]


def test_lipool_takes_a_spike_back():
    # CIF, theta 10, v0 0; first -> second by 10, bias -6 on each of 2 wake steps, v0 9 (as in
    # test_reference): the second neuron fires at step 1 and takes it back at step 2.
    first = Population(
        "first",
        (1, 1, 2),
        (ConvSynapse("input", [[[[20]]]]),),
        [-10],
        ConsistentIntegrateAndFire([20], [10]),
    )
    second = Population(
        "second",
        (1, 1, 2),
        (ConvSynapse("first", [[[[10]]]]),),
        [-6],
        ConsistentIntegrateAndFire([10], [9]),
    )
    pool = Population("pool", (1, 1, 1), (WindowSynapse("second", (1, 2), (1, 2)),), [0], LIPool())
    readout = Population("readout", (1,), (DenseSynapse("pool", [[5]]),), [0], Readout(1.0))
    program = IntProgram(
        "back",
        InputQuantizer((1, 1, 2), 1.0),
        (first, second, pool, readout),
        Schedule(2, 1),
    )
    # Pixel 1 as there: spikes 1 -1 0. Pixel 0: the first goes 10 - 10 = 0, then -10: no spike; the
    # second 9 - 6 = 3, then -3: nothing to take back.
    recording = simulate(program, np.array([[[[1, 0]]]]))
    assert recording.spikes["second"].reshape(3, 2).T.tolist() == [[1, -1, 0], [0, 0, 0]]
    assert recording.spikes["pool"].ravel().tolist() == [1, -1, 0]
    assert recording.membrane["pool"].ravel().tolist() == [1, 0, 0]
    assert recording.membrane["readout"].ravel().tolist() == [5, 0, 0]


def test_synops_of_overlapping_windows():
    """One for each window that covers a spike; no multiply-adds."""
    net = Branches(0, "if", (1, 3, 3))
    net.add("stem", [net.conv("input", 1, 1)])
    net.pool("pool", "stem", 2, 1)
    net.add("readout", [net.dense("pool", 2)], Readout(1.0))
    program = net.program(InputQuantizer((1, 3, 3), 1.0, bits=1), Schedule(1))
    assert fan_out(program)["stem"].tolist() == [[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]
    assert dense_operations(program) == 9 + 4 * 2


def test_relay_and_skip_by_hand():
    # Four pixels of 10 fire at every step (theta 10); the relay sums 2x2 of them: 4 graded. The
    # cell gets 4 * 3 from it and (1 << 2) * 1 from the stem, 16 per step with theta 20, v0 0:
    # 16; 32 -> spike, 12; 28 -> spike, 8.
    stem = Population(
        "stem", (1, 2, 2), (ConvSynapse("input", [[[[1]]]]),), [0], IntegrateAndFire([10], [0])
    )
    relay = Population(
        "relay", (1, 1, 1), (ConvSynapse("stem", np.ones((1, 1, 2, 2))),), [0], Relay()
    )
    skip = ConvSynapse("stem", [[[[1]]]], stride=(2, 2), weight_exponent=2)
    cell = Population(
        "cell",
        (1, 1, 1),
        (ConvSynapse("relay", [[[[3]]]]), skip),
        [0],
        IntegrateAndFire([20], [0]),
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    program = IntProgram(
        "skip", InputQuantizer((1, 2, 2), 1.0, bits=4), (stem, relay, cell, readout), Schedule(3)
    )
    assert program.depths() == {"input": 0, "stem": 1, "relay": 2, "cell": 3, "readout": 4}
    assert [program.delay(cell, s) for s in cell.synapses] == [0, 1]
    assert program.spike_range("relay") == IntRange(0, 4)
    recording = simulate(program, np.full((1, 1, 2, 2), 10))
    assert recording.spikes["relay"].ravel().tolist() == [4, 4, 4]
    assert recording.membrane["relay"].ravel().tolist() == [0, 0, 0]
    assert recording.spikes["cell"].ravel().tolist() == [0, 1, 1]
    assert recording.membrane["cell"].ravel().tolist() == [16, 12, 8]
    # A graded spike counts once: 3 steps x 1 event x 1 target; each stem spike meets one 2x2
    # window, and the one at the top left the strided skip as well.
    assert recording.meta["synops"]["relay"] == 3
    assert recording.meta["synops"]["stem"] == 3 * (4 + 1)
    assert dense_operations(program) == 4 + (4 + 1) + 1 + 1


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    blocks=SOME_BLOCKS,
    wake=st.integers(1, 4),
    sleep=st.integers(0, 4),
    signed=st.booleans(),
    span=st.sampled_from([(-128, 127), (-3, 0), (0, 5)]),
)
def test_agrees_with_a_plain_loop_within_its_bounds(seed, kind, blocks, wake, sleep, signed, span):
    program = branched_program(
        seed,
        kind,
        blocks,
        schedule=Schedule(wake, sleep if kind == "cif" else 0),
        signed_input=signed,
        low=span[0],
        high=span[1],
    )
    inputs = random_inputs(program, 3, seed)
    inputs[0], inputs[1] = program.input.range.high, program.input.range.low
    spikes, membrane = numpy_loop.run(program, inputs)
    assert_recording_is(simulate(program, inputs, batch=2), spikes, membrane)
    growths = count_growths(program)
    for bound in analyse(program):
        observed = membrane[bound.name]
        assert bound.state.contains(int(observed.min()), int(observed.max())), bound
    for population in program.spiking:
        sent = spikes[population.name]
        allowed = program.spike_range(population.name)
        assert allowed.contains(int(sent.min()), int(sent.max())), population.name
        for step, count in enumerate(sent.cumsum(axis=0), 1):
            reached = growths[population.name].after(step, min(step, wake))
            assert reached.contains(int(count.min()), int(count.max())), population.name


@settings(max_examples=12)
@given(seed=st.integers(0, 2**31), q=st.integers(1, 6), blocks=SOME_BLOCKS)
def test_settled_cif_is_the_closed_form(seed, q, blocks):
    program = branched_program(seed, "cif", blocks, schedule=Schedule(q, 80), signed_input=True)
    inputs = random_inputs(program, 3, seed)
    assert_lossless(program, inputs, simulate(program, inputs))


def test_pools_take_spikes_back_in_random_networks():
    """The generator reaches what the rules are for."""
    program = branched_program(1, "cif", ("residual", "max"), schedule=Schedule(4, 8))
    recording = simulate(program, random_inputs(program, 20))
    assert recording.spikes["max1"].min() == -1
    assert recording.spikes["max1"].max() == 1


def test_count_bounds_by_hand():
    for neuron, growth, state in (
        (IntegrateAndFire([1], [0]), CountGrowth(step=IntRange(0, 1)), IntRange(0, 5)),
        (ConsistentIntegrateAndFire([1], [0]), CountGrowth(wake=IntRange(0, 1)), IntRange(0, 3)),
    ):
        program = pooled(neuron, 7, 0, Schedule(3, 2))
        assert count_growths(program)["pool"] == growth
        assert analyse(program)[1].state == state
    # Reached: with a current of 7 and a threshold of 1, one spike at each step, asleep too.
    recording = simulate(
        pooled(IntegrateAndFire([1], [0]), 7, 0, Schedule(3, 2)), np.full((1, 1, 1, 2), 1)
    )
    assert recording.membrane["pool"].max() == 5


def test_a_readout_behind_pool_and_relay_reaches_its_bound():
    net = Branches(0, "if", (1, 2, 2))
    net.populations.append(
        Population(
            "stem", (1, 2, 2), (ConvSynapse("input", [[[[1]]]]),), [0], IntegrateAndFire([1], [0])
        )
    )
    net.shapes["stem"] = (1, 2, 2)
    net.pool("pool", "stem", 2, 2)
    net.sum_pool("relay", "stem", 2, 2)
    both = (DenseSynapse("pool", [[100]]), DenseSynapse("relay", [[-7]]))
    net.populations.append(Population("readout", (1,), both, [0], Readout(1.0)))
    program = net.program(InputQuantizer((1, 2, 2), 1.0, bits=1), Schedule(6))
    assert count_growths(program)["relay"] == CountGrowth(step=IntRange(0, 4))
    assert analyse(program)[-1].state == IntRange(-6 * 7 * 4, 600)
    # One pixel on brings the pool's 100 and one relayed spike per step; all on, four.
    one = simulate(program, np.array([[[[1, 0], [0, 0]]]]))
    assert one.logits.tolist() == [[6 * (100 - 7)]]
    assert simulate(program, np.ones((1, 1, 2, 2), int)).logits.tolist() == [[6 * (100 - 28)]]


def relay_of(channels, weight=1, neuron=None):
    """Dense relay over `channels` neurons."""
    neuron = neuron or ConsistentIntegrateAndFire([1] * channels, [0] * channels)
    return (
        Population(
            "cells", (channels,), (DenseSynapse("input", [[1]] * channels),), [0] * channels, neuron
        ),
        Population("relay", (1,), (DenseSynapse("cells", [[weight] * channels]),), [0], Relay()),
        Population("readout", (1,), (DenseSynapse("relay", [[1]]),), [0], Readout(1.0)),
    )


def test_what_a_relay_may_send():
    quantizer = InputQuantizer((1,), 1.0, bits=1)
    program = IntProgram("relay", quantizer, relay_of(127), Schedule(1))
    assert program.spike_range("relay") == IntRange(-127, 127)
    with pytest.raises(UnprovedRangeError, match=r"(?s)relay: .*-128 \.\. 128.*fold the pool"):
        IntProgram("relay", quantizer, relay_of(128), Schedule(1))
    with pytest.raises(UnprovedRangeError, match=r"the state range"):
        IntProgram("relay", quantizer, relay_of(9), Schedule(1), state_bits=4)
    one_sided = relay_of(128, -1, IntegrateAndFire([1] * 128, [0] * 128))
    program = IntProgram("relay", quantizer, one_sided, Schedule(2))
    assert program.spike_range("relay") == IntRange(-128, 0)
    recording = simulate(program, np.ones((1, 1), int))
    assert recording.logits.tolist() == [[-256]]
    # -128 has no positive counterpart in int8; it is one event all the same.
    assert recording.meta["synops"]["relay"] == 2


def with_changed(program, name, **changes):
    return replace(
        program,
        populations=tuple(
            replace(p, **changes) if p.name == name else p for p in program.populations
        ),
    )


def test_what_a_lipool_refuses():
    program = pooled(IntegrateAndFire([10], [0]), 1, 0, Schedule(2))
    window = WindowSynapse("cells", (1, 2), (1, 2))
    refused = [
        ({"bias": np.array([1])}, "a LIPOOL has no bias"),
        ({"synapses": (window, window)}, "a LIPool pools one layer"),
        ({"synapses": (WindowSynapse("input", (1, 2), (1, 2)),)}, "must not become negative"),
        ({"synapses": (ConvSynapse("cells", [[[[1, 1]]]]),)}, "is fed by windows"),
        ({"neuron": Relay()}, "is fed by windows"),
        ({"shape": (1, 1, 2)}, "does not fit its population"),
    ]
    for changes, message in refused:
        with pytest.raises(ProgramError, match=f"pool: .*{message}"):
            with_changed(program, "pool", **changes)
    cells, relay, readout = relay_of(3)
    with pytest.raises(ProgramError, match="a RELAY has no bias"):
        IntProgram(
            "relay",
            InputQuantizer((1,), 1.0, bits=1),
            (cells, replace(relay, bias=[1]), readout),
            Schedule(1),
        )


def test_a_lipool_behind_a_relay_is_refused():
    net = Branches(0, "if", (1, 4, 4))
    net.add("stem", [net.conv("input", 1)])
    net.sum_pool("relay", "stem", 1, 1)
    net.pool("pool", "relay", 2, 2)
    net.add("readout", [net.dense("pool", 2)], Readout(1.0))
    with pytest.raises(
        ProgramError, match=r"(?s)pool: a LIPool compares net counts.*relay, which sends 0"
    ):
        net.program(InputQuantizer((1, 4, 4), 1.0, bits=4), Schedule(1))


def test_windows_are_checked():
    with pytest.raises(ProgramError, match="at most half its kernel"):
        WindowSynapse("a", (3, 3), (1, 1), (2, 0))
    with pytest.raises(ProgramError, match="holds nothing but padding"):
        WindowSynapse("a", (2, 2), (1, 1), (1, 1), (2, 2)).output_shape((1, 1, 1))
    with pytest.raises(ProgramError, match="larger than the padded source"):
        WindowSynapse("a", (3, 3), (1, 1)).output_shape((1, 2, 4))
    with pytest.raises(ProgramError, match="a source of"):
        WindowSynapse("a", (3, 3), (1, 1)).output_shape((5,))
    with pytest.raises(ProgramError, match="kernel must be two integers"):
        WindowSynapse("a", (0, 3), (1, 1))


def test_the_readout_comes_last():
    program = branched_program(0)
    *rest, readout = program.populations
    with pytest.raises(ProgramError, match="readout: the readouts must come last"):
        replace(
            program,
            populations=(rest[0], replace(readout, synapses=(readout.synapses[1],)), rest[1]),
        )


def test_exponents_that_no_state_holds_are_refused():
    with pytest.raises(ProgramError, match=r"weight_exponent must be 0 \.\. 31"):
        DenseSynapse("a", [[1]], 32)
    with pytest.raises(ProgramError, match="too large together"):
        analyse(
            IntProgram(
                "large",
                InputQuantizer((1,), 1.0),
                (Population("r", (1,), (DenseSynapse("input", [[127]], 31),), [0], Readout(1.0)),),
                Schedule(1),
            )
        )


def test_sums_that_are_not_exact_are_noticed(monkeypatch, caplog):
    """A convolution that is a little off, as NNPACK's is, is made in float64."""
    program = branched_program(0)
    inputs = random_inputs(program, 1)
    expected = simulate(program, inputs)
    exact = currents.F.conv2d  # type: ignore[attr-defined]

    def off(spikes, *how):
        result = exact(spikes, *how)
        return result - 0.01 if spikes.dtype is currents.torch.float32 else result  # type: ignore[attr-defined]

    monkeypatch.setattr(currents.F, "conv2d", off)  # type: ignore[attr-defined]
    assert compare(expected, simulate(program, inputs)).equal
    assert "stem: float32 sums" in caplog.text


def test_large_sums_are_added_up_in_float64():
    """2^24 + 1 = 518 * 127 * 255 + 7 * 255 + 2 is no float32."""
    weight = np.array([[127] * 518 + [7, 2]])
    readout = Population("readout", (1,), (DenseSynapse("input", weight),), [0], Readout(1.0))
    program = IntProgram(
        "wide", InputQuantizer((520,), 1.0), (readout,), Schedule(1), state_bits=26
    )
    inputs = np.array([[255] * 519 + [1]])
    assert simulate(program, inputs).logits.tolist() == [[2**24 + 1]]


def test_states_that_recordings_cannot_hold_are_refused():
    with pytest.raises(ProgramError, match="state_bits"):
        replace(branched_program(0), state_bits=33)
