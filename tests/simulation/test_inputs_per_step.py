"""Inputs that change over time: a tensor of graded spikes for each wake step."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exports.netx import read_net
from spikeport.reproducer import write_reproducer
from tests.command_line import ROOT
from tests.comparing import assert_lossless, assert_recording_is, assert_same
from tests.networks import (
    BLOCKS,
    branched_program,
    fits,
    one_convolution,
    per_step,
    random_inputs,
    random_program,
)
from tests.oracles import numpy_loop
from tests.strategies import CONVS, KINDS, SCHEDULES, SHARES, choosing
from toolchain.engine import synaptic_sum
from toolchain.engine.dense_sums import Arithmetic
from toolchain.engine.memory_plan import SPIKES, samples_and_steps
from toolchain.engine.settle import settle_time
from toolchain.engine.simulate import Way, simulate
from toolchain.errors import ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import run_steps
from toolchain.simulator.reference import simulate as stepwise

FORCED = [None, Arithmetic.FLOAT32, Arithmetic.FLOAT64]


def sequences(program, count, seed):
    """Random sequences; some steps have few spikes, and some have none."""
    rng = np.random.default_rng(seed)
    inputs = random_inputs(program, count, seed)
    share = rng.choice([0.0, 0.1, 1.0], inputs.shape[:2])
    share = share.reshape(*share.shape, *([1] * len(program.input.shape)))
    return np.where(rng.random(inputs.shape) < share, inputs, 0).astype(np.int32)


@st.composite
def chains(draw):
    kind, convs, seed = draw(KINDS), draw(CONVS), draw(st.integers(0, 999))
    assume(fits((2, 5, 4), convs))
    schedule, signed = draw(SCHEDULES[kind]), draw(st.booleans())
    program = random_program(seed, kind, (2, 5, 4), convs, schedule=schedule, signed_input=signed)
    return per_step(program), seed


@st.composite
def branches(draw):
    kind, seed = draw(KINDS), draw(st.integers(0, 999))
    blocks = draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    schedule = draw(SCHEDULES[kind])
    return per_step(branched_program(seed, kind, blocks, schedule=schedule, low=-9, high=9)), seed


@settings(max_examples=30, deadline=None)
@given(chain=chains())
def test_the_reference_is_the_plain_loop(chain):
    program, seed = chain
    inputs = sequences(program, 2, seed)
    recording = stepwise(program, inputs, batch=1)
    assert_recording_is(recording, *numpy_loop.run(program, inputs))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), kind=KINDS, wake=st.integers(1, 4), sleep=st.integers(0, 3))
def test_branches_are_the_plain_loop(seed, kind, wake, sleep):
    blocks = [sorted(BLOCKS)[seed % len(BLOCKS)]]
    schedule = Schedule(wake, sleep if kind == "cif" else 0)
    program = per_step(branched_program(seed, kind, blocks, schedule=schedule, low=-9, high=9))
    inputs = sequences(program, 2, seed)
    assert_recording_is(stepwise(program, inputs), *numpy_loop.run(program, inputs))


@settings(max_examples=40, deadline=None)
@given(drawn=chains() | branches(), block=st.none() | st.integers(1, 6), data=st.data())
def test_the_engine_gives_the_same_bits(drawn, block, data):
    program, seed = drawn
    assert_same(program, sequences(program, data.draw(st.integers(1, 5)), seed), block)


@settings(max_examples=60, deadline=None)
@given(
    drawn=chains() | branches(),
    block=st.none() | st.integers(1, 6),
    share=st.sampled_from(list(SHARES.values())),
    forced=st.sampled_from(FORCED),
)
def test_every_way_of_summing_gives_the_same_bits(drawn, block, share, forced):
    program, seed = drawn
    with choosing(share), pytest.MonkeyPatch.context() as patch:
        if forced is not None:
            patch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: forced)
        assert_same(program, sequences(program, 3, seed), block)


@settings(max_examples=20, deadline=None)
@given(drawn=chains() | branches(), block=st.none() | st.integers(1, 6))
def test_tensors_on_a_device_give_the_same_bits(drawn, block):
    program, seed = drawn
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert_same(program, sequences(program, 2, seed), block, device)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (12, False), (12, True)])
def test_largest_inputs_in_turn(bits, signed):
    program = per_step(one_convolution(np.full((1, 1, 3, 3), -128), bits, signed))
    ends = program.input.range.low, program.input.range.high
    frames = [np.full((1, 3, 3), end) for end in ends]
    inputs = np.stack([np.stack(pair) for pair in product(frames, repeat=2)]).astype(np.int32)
    assert_same(program, inputs)
    assert_recording_is(stepwise(program, inputs), *numpy_loop.run(program, inputs))


def test_steps_by_hand():
    # theta 10, v0 5, bias 1, weight 3: potentials 5 + 7 - 10 = 2, 2 - 2 = 0, 0 + 10 - 10 = 0, 1.
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[3]]),), [1], IntegrateAndFire([10], [5])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[4]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1,), 1.0, bits=4, signed=True, per_step=True)
    program = IntProgram("one", quantizer, (cell, readout), Schedule(4))
    inputs = np.array([[[2], [-1], [3], [0]]])
    for recording in (stepwise(program, inputs), simulate(program, inputs)):
        assert recording.spikes["cell"].ravel().tolist() == [1, 0, 1, 0]
        assert recording.membrane["cell"].ravel().tolist() == [2, 0, 0, 1]
        assert recording.logits.ravel().tolist() == [8]
        # One weight for each graded spike that is not 0, and one for each spike of the cell.
        assert recording.meta["synops"] == {"input": 3, "cell": 2}


@settings(max_examples=20, deadline=None)
@given(drawn=chains() | branches(), count=st.integers(1, 3))
def test_a_constant_sequence_is_the_static_input(drawn, count):
    program, seed = drawn
    static = replace(program, input=replace(program.input, per_step=False))
    inputs = random_inputs(static, count, seed)
    wake = program.schedule.wake_steps
    constant = np.repeat(inputs[:, None], wake, axis=1)
    expected, found = simulate(static, inputs), simulate(program, constant)
    comparison = compare(expected, found)
    assert comparison.total == 0, comparison.first
    assert found.meta["synops"] == expected.meta["synops"]
    # Only the program's form of input tells them apart.
    assert not comparison.same_program


def test_programs_with_static_inputs_keep_their_hash():
    """The hash and header that version 0.2 wrote for this program."""
    program = random_program(7, "cif", schedule=Schedule(3, 2))
    assert "per_step" not in program.structure()["input"]
    assert program.hash == "37f079cdd88827262e56c7e42248e0a2f7b8948f1604a77858c4fa4ffcc730fa"
    assert program.input.describe() == {
        "shape": [2, 6, 5],
        "scale": 1.0,
        "bits": 4,
        "signed": False,
        "mean": [0.0],
        "std": [1.0],
    }
    changing = per_step(program)
    assert changing.hash != program.hash
    assert InputQuantizer.from_description(changing.input.describe()) == changing.input
    assert InputQuantizer.from_description(program.input.describe()) == program.input


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    wake=st.integers(1, 6),
    sleep=st.integers(0, 6),
    signed=st.booleans(),
)
def test_bounds_contain_every_sequence(seed, kind, wake, sleep, signed):
    schedule = Schedule(wake, sleep)
    program = per_step(
        random_program(seed, kind, hidden=(5, 4), schedule=schedule, signed_input=signed)
    )
    ends = np.array([program.input.range.low, program.input.range.high], np.int32)
    rng = np.random.default_rng(seed)
    # Whole tensors at an end of the range, in turn, and each value at one.
    inputs = np.zeros((4, *program.sample_shape), np.int32)
    inputs[0], inputs[1] = (ends[(np.arange(wake) + k) % 2].reshape(-1, 1, 1, 1) for k in (0, 1))
    inputs[2:] = rng.choice(ends, inputs[2:].shape)
    _, membrane = numpy_loop.run(program, inputs)
    for bound in analyse(program):
        observed = membrane[bound.name]
        assert bound.state.contains(int(observed.min()), int(observed.max())), bound


@pytest.mark.parametrize("weights", list(product((-3, 2), repeat=2)))
@pytest.mark.parametrize("bias", [-2, 5])
def test_every_sequence_of_a_tiny_neuron(weights, bias):
    """Exhaustive: all 4,096 sequences of three steps; the current's bounds are attained."""
    populations = (
        Population(
            "cell",
            (1,),
            (DenseSynapse("input", [list(weights)]),),
            [bias],
            IntegrateAndFire([4], [2]),
        ),
        Population("readout", (1,), (DenseSynapse("cell", [[3]]),), [-1], Readout(1.0)),
    )
    quantizer = InputQuantizer((2,), 1.0, bits=2, per_step=True)
    program = IntProgram("tiny", quantizer, populations, Schedule(3))
    frames = np.array(list(product(range(4), repeat=2)), np.int32)
    inputs = frames[np.array(list(product(range(16), repeat=3)))]
    _, membrane = numpy_loop.run(program, inputs)
    cell, readout = analyse(program)
    sums = frames @ np.array(weights)
    assert cell.current == IntRange(int(sums.min()), int(sums.max()))
    for bound in (cell, readout):
        observed = membrane[bound.name]
        assert bound.state.contains(int(observed.min()), int(observed.max()))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), q=st.integers(1, 6), depth=st.integers(0, 2))
def test_settled_networks_only_see_the_sum(seed, q, depth):
    program = random_program(
        seed, "cif", hidden=(6,) * depth, schedule=Schedule(q, 60), signed_input=True
    )
    program = per_step(program)
    inputs = sequences(program, 3, seed)
    assert settle_time(program, inputs) <= 60
    recording = simulate(program, inputs)
    assert_lossless(program, inputs, recording)
    other = simulate(program, inputs[:, ::-1])
    assert np.array_equal(other.logits, recording.logits)


def test_wrong_sequences_are_refused():
    program = per_step(random_program(1))
    inputs = random_inputs(program, 2)
    for run in (stepwise, simulate, lambda *a: next(run_steps(*a))):
        with pytest.raises(ProgramError, match=r"(?s)for each wake step.*5 tensors"):
            run(program, np.concatenate([inputs, inputs[:, :1]], axis=1))
        with pytest.raises(ProgramError, match="do not fit"):
            run(program, inputs[:, 0])
        with pytest.raises(ProgramError, match="do not fit"):
            run(program, inputs[:0])
        beyond = inputs.copy()
        beyond[1, 3, 0, 0, 0] = 16
        with pytest.raises(ValueRangeError):
            run(program, beyond)
    with pytest.raises(ProgramError, match="do not fit"):
        simulate(random_program(1), inputs)


def test_memory_does_not_grow_with_the_steps():
    """Blocks are shorter where the spikes of the largest layer, or the input, would not fit."""
    how = {"hidden": (), "schedule": Schedule(1000)}
    layer = per_step(random_program(1, shape=(1, 300, 300), **how))
    given = per_step(random_program(1, shape=(3, 300, 300), convs=((1, 3, 2, 1, 1, 1),), **how))
    for program in (layer, given):
        assert samples_and_steps(program, None) == (1, SPIKES // (3 * 300 * 300))
        assert samples_and_steps(program, 7)[1] == 7
    assert samples_and_steps(per_step(random_program(1)), None)[1] == 4


@pytest.mark.parametrize("mode", [Mode.DIGEST, Mode.COUNTS])
def test_hundreds_of_steps_in_little_memory(mode):
    program = per_step(random_program(3, schedule=Schedule(300)))
    inputs = random_inputs(program, 2)
    expected = simulate(program, inputs, mode=mode, way=Way.STEPWISE)
    assert samples_and_steps(program, None, memory=200_000)[1] < 300
    assert compare(expected, simulate(program, inputs, mode=mode, memory=200_000)).equal


def test_a_mismatch_in_a_sequence_is_reproduced(tmp_path):
    """Two simulators, one with another bias: located by sample, and cut down to one sequence."""
    program = per_step(random_program(5, convs=((3, 3, 1, 1, 1, 1),) * 2, schedule=Schedule(6)))
    inputs = random_inputs(program, 3)
    first, second = (
        simulate(program, inputs, mode=Mode.DIGEST, way=way) for way in (Way.FAST, Way.STEPWISE)
    )
    other = replace(program.populations[1], bias=program.populations[1].bias + 1)
    changed = replace(
        program, populations=(program.populations[0], other, *program.populations[2:])
    )
    wrong = simulate(changed, inputs, mode=Mode.DIGEST)
    divergence = compare(first, wrong).first
    assert divergence is not None
    assert (divergence.layer, divergence.step) == ("conv1", 1)
    assert compare(first, second).equal
    found = replace(divergence, sample=2, neuron=(0, 0, 0))
    script = write_reproducer(program, inputs, found, (first.meta, second.meta), tmp_path)
    sample = np.load(tmp_path / "sample.npy")
    assert np.array_equal(sample, inputs[2:3])
    small = read_net(tmp_path / "net.net")
    assert [p.name for p in small.populations] == ["conv0", "conv1", "readout"]
    assert small.input == program.input
    done = subprocess.run(
        [sys.executable, script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "0 mismatches" in done.stdout
