"""Branched programs on Lava: every spike and state as on the reference simulator and the loop."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exports.lava import run_on_lava
from hw_models.stock.groups import merge_groups
from tests.comparing import assert_recording_is
from tests.networks import BLOCKS, Branches, branched_program, random_inputs
from tests.oracles import numpy_loop
from tests.strategies import KINDS, pooled_programs
from toolchain.errors import TargetError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, Readout, Relay
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate


# Shrinking would start hundreds of Lava runs; a failing example is small as it is.
@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=2),
    wake=st.integers(1, 3),
    sleep=st.integers(1, 4),
    signed=st.booleans(),
    skip=st.booleans(),
)
def test_three_ways(seed, kind, blocks, wake, sleep, signed, skip):
    program = branched_program(
        seed,
        kind,
        blocks,
        schedule=Schedule(wake, sleep if kind == "cif" else 0),
        signed_input=signed,
        skip_to_readout=skip,
    )
    inputs = random_inputs(program, 3, seed)
    lava = run_on_lava(program, inputs, time_limit=120)
    comparison = compare(simulate(program, inputs), lava)
    assert comparison.equal, comparison.first
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        ("if", Schedule(4)),
        ("cif", Schedule(4, 8)),
        ("cif", Schedule(2, 2)),
        ("graded", Schedule(3)),
    ],
)
def test_every_block_samples_back_to_back(kind, schedule):
    """A larger network with every block; samples share no state although branches lag."""
    program = branched_program(
        4, kind, ("residual", "max", "concat", "sum"), shape=(2, 8, 7), schedule=schedule
    )
    inputs = random_inputs(program, 5)
    reference = simulate(program, inputs)
    assert all(np.abs(s).sum() for s in reference.spikes.values())
    together = run_on_lava(program, inputs, time_limit=200)
    comparison = compare(reference, together)
    assert comparison.equal, comparison.first
    backwards = simulate(program, inputs[::-1].copy())
    assert np.array_equal(backwards.logits[::-1], together.logits)


@pytest.mark.parametrize(("kind", "schedule"), [("if", Schedule(4)), ("cif", Schedule(4, 8))])
def test_pools_that_hang_over_the_border(kind, schedule):
    program = branched_program(
        3, kind, ("overhang", "residual", "overhang"), shape=(2, 11, 10), schedule=schedule
    )
    inputs = random_inputs(program, 5)
    reference = simulate(program, inputs, mode=Mode.DIGEST)
    counted = simulate(program, inputs)
    assert all(np.abs(s).sum() for s in counted.spikes.values())
    lava = run_on_lava(program, inputs, mode=Mode.DIGEST, time_limit=120)
    comparison = compare(reference, lava)
    assert comparison.equal, comparison.first
    assert np.array_equal(counted.logits, lava.logits)


# As above, without shrinking.
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(program=pooled_programs(), seed=st.integers(0, 99))
def test_pools_of_every_geometry(program, seed):
    inputs = random_inputs(program, 3, seed)
    lava = run_on_lava(program, inputs, time_limit=120)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


def test_pools_take_spikes_back():
    program = branched_program(1, "cif", ("residual", "max"), schedule=Schedule(4, 8))
    inputs = random_inputs(program, 20)
    lava = run_on_lava(program, inputs, time_limit=120)
    assert lava.spikes["max1"].min() == -1
    comparison = compare(simulate(program, inputs), lava)
    assert comparison.equal, comparison.first


def test_unequal_depths_by_hand():
    """Input and first layer meet at the readout, two steps apart: sums of each sample's own."""
    populations = (
        Population("a", (1,), (DenseSynapse("input", [[1]]),), [0], IntegrateAndFire([1], [0])),
        Population("b", (1,), (DenseSynapse("a", [[1]]),), [0], IntegrateAndFire([1], [0])),
        Population(
            "readout",
            (1,),
            (DenseSynapse("b", [[100]]), DenseSynapse("input", [[1]]), DenseSynapse("a", [[10]])),
            [0],
            Readout(1.0),
        ),
    )
    program = IntProgram("skip", InputQuantizer((1,), 1.0, bits=3), populations, Schedule(2))
    lava = run_on_lava(program, np.array([[3], [0], [5]]), time_limit=60)
    # Every step one spike of each while the input is on, and the input itself.
    assert lava.logits.tolist() == [[2 * 113], [0], [2 * 115]]
    assert lava.membrane["readout"].ravel().tolist() == [113, 0, 115, 226, 0, 230]


@pytest.mark.parametrize("values", [(-3, 2), (-1, 0), (0, 1), (0, 7)])
def test_graded_spikes_of_either_sign(values):
    """A relay behind relays; message bits must carry sign and size."""
    rng = np.random.default_rng(1)
    low, high = values
    weight = np.concatenate([np.arange(low, high + 1), [0]])[None]
    size = weight.shape[1]
    eye = np.eye(size, dtype=int)
    cell = IntegrateAndFire([1] * size, [0] * size)
    signs = ConsistentIntegrateAndFire([9] * 2, [4] * 2)
    populations = (
        Population("cells", (size,), (DenseSynapse("input", eye),), [0] * size, cell),
        Population("relay", (1,), (DenseSynapse("cells", weight),), [0], Relay()),
        Population("again", (2,), (DenseSynapse("relay", [[2], [-3]]),), [0, 0], Relay()),
        Population("cif", (2,), (DenseSynapse("again", [[3, 1], [1, -2]]),), [1, 2], signs),
        Population(
            "readout",
            (2,),
            (DenseSynapse("cif", [[7, 1], [2, 5]]), DenseSynapse("relay", [[5], [-3]])),
            [0, 0],
            Readout(1.0),
        ),
    )
    program = IntProgram("signs", InputQuantizer((size,), 1.0, bits=1), populations, Schedule(3, 3))
    inputs = rng.integers(0, 2, (6, size)).astype(np.int32)
    lava = run_on_lava(program, inputs, time_limit=60)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


@pytest.mark.parametrize(
    ("groups", "per_group", "out"), [(128, 1, 1), (129, 1, 2), (131, 1, 1), (256, 2, 1)]
)
def test_merged_groups_are_the_same_convolution(groups, per_group, out):
    rng = np.random.default_rng(groups)
    weight = rng.integers(-128, 128, (groups * out, per_group, 3, 2))
    merged, fewer = merge_groups(weight, groups, 127)
    assert fewer <= 127
    assert np.count_nonzero(merged) == np.count_nonzero(weight)
    x = rng.integers(-4, 5, (groups * per_group, 5, 4))
    how = ((2, 1), (1, 0), (1, 2))
    assert np.array_equal(
        numpy_loop.convolve(x, weight, *how, groups), numpy_loop.convolve(x, merged, *how, fewer)
    )


def test_few_groups_stay():
    weight = np.ones((127, 1, 1, 1))
    merged, groups = merge_groups(weight, 127, 127)
    assert merged is weight
    assert groups == 127


def test_skips_and_sum_pools_of_many_channels():
    """Stock Conv gives zeros for 128 groups; 130 channels pass a skip and a pool all the same."""
    channels = 130
    net = Branches(4, "cif", (2, 4, 4))
    stem = net.add("stem", [net.conv("input", channels, 1)])
    net.sum_pool("pool", stem, 2, 2)
    rng = np.random.default_rng(0)
    skip = ConvSynapse(
        stem,
        rng.integers(1, 128, (channels, 1, 1, 1)),
        stride=(2, 2),
        groups=channels,
        weight_exponent=3,
    )
    net.add("sum", [skip, net.conv("pool", channels, 1)])
    net.add("readout", [net.dense("sum", 3)], Readout(1.0))
    program = net.program(InputQuantizer((2, 4, 4), 1.0, bits=4), Schedule(2, 2))
    inputs = random_inputs(program, 2)
    reference = simulate(program, inputs)
    assert all(np.abs(s).sum() for s in reference.spikes.values())
    comparison = compare(reference, run_on_lava(program, inputs, time_limit=120))
    assert comparison.equal, comparison.first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dilation": (64, 1), "weight": np.ones((1, 1, 3, 1), int)}, "largest geometry value 129"),
        ({"padding": (128, 0)}, "largest geometry value 128"),
        ({"weight_exponent": 31}, "keeps shifted weights in 32 bits"),
        ({"weight_exponent": 22}, "stock Conv may wrap"),
    ],
)
def test_what_stock_conv_would_get_wrong_is_refused(changes, message):
    conv = replace(ConvSynapse("input", np.full((1, 1, 1, 1), 2)), **changes)
    shape = conv.output_shape((1, 140, 1))
    cell = Population("conv", shape, (conv,), [0], IntegrateAndFire([1], [0]))
    size = int(np.prod(shape))
    readout = Population("out", (1,), (DenseSynapse("conv", [[1] * size]),), [0], Readout(1.0))
    program = IntProgram("far", InputQuantizer((1, 140, 1), 1.0), (cell, readout), Schedule(1))
    with pytest.raises(TargetError, match=f"(?s)conv: .*{message}"):
        run_on_lava(program, np.ones((1, 1, 140, 1), np.int32), time_limit=60)


def test_message_bits_hold_the_range_and_its_sign():
    # In an interpreter of its own, since preparing for Lava changes the process.
    code = """
from hw_models import lava_compat
lava_compat.prepare()
from hw_models.message_bits import message_bits
from toolchain.int_range import IntRange
print([message_bits(IntRange(*r)) for r in
       ((0, 0), (0, 1), (0, 2), (0, 255), (-1, 0), (-1, 1), (-128, 127), (-128, 128))])
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[0, 0, 2, 8, 1, 2, 8, 9]"
