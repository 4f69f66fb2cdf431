"""Random programs: Lava, the reference simulator and a plain NumPy loop agree on every bit."""

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from exports.lava import run_on_lava
from tests.comparing import assert_recording_is
from tests.networks import fits, random_inputs, random_program
from tests.oracles import numpy_loop
from tests.strategies import KINDS, convolutions
from toolchain.errors import TargetError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.recording import compare
from toolchain.simulator.reference import simulate


# Shrinking would start hundreds of Lava runs; a failing example is small as it is.
@settings(max_examples=18, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    convs=convolutions((2, 4)),
    hidden=st.lists(st.integers(1, 4), max_size=1),
    wake=st.integers(1, 3),
    sleep=st.integers(0, 3),
    signed=st.booleans(),
    span=st.sampled_from([(-128, 127), (-3, 0), (0, 5), (0, 0)]),
)
def test_three_ways(seed, kind, convs, hidden, wake, sleep, signed, span):
    assume(fits((2, 6, 7), convs))
    program = random_program(
        seed,
        kind,
        shape=(2, 6, 7),
        convs=convs,
        hidden=hidden,
        schedule=Schedule(wake, sleep if kind == "cif" else 0),
        signed_input=signed,
        low=span[0],
        high=span[1],
    )
    inputs = random_inputs(program, 3, seed)
    lava = run_on_lava(program, inputs, time_limit=120)
    comparison = compare(simulate(program, inputs), lava)
    assert comparison.equal, comparison.first
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


def test_single_neuron_and_rectangular_geometry():
    weight = np.array([[[[3, -7, 5]]]])
    conv = ConvSynapse("input", weight, stride=(2, 3), padding=(0, 2), dilation=(1, 2))
    shape = conv.output_shape((1, 3, 11))
    populations = (
        Population("conv", shape, (conv,), [1], IntegrateAndFire([9], [4])),
        Population(
            "one",
            (1,),
            (DenseSynapse("conv", np.full((1, int(np.prod(shape))), -5), weight_exponent=2),),
            [40],
            IntegrateAndFire([30], [15]),
        ),
        Population("readout", (1,), (DenseSynapse("one", [[-128]]),), [2], Readout(0.5)),
    )
    quantizer = InputQuantizer((1, 3, 11), 1.0, bits=3, signed=True)
    program = IntProgram("one", quantizer, populations, Schedule(5))
    inputs = random_inputs(program, 4)
    lava = run_on_lava(program, inputs, time_limit=60)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


def test_images_wider_than_int8_geometry():
    program = random_program(
        2, shape=(1, 3, 150), convs=((2, 3, 2, 1, 1, 1),), hidden=(), schedule=Schedule(2)
    )
    inputs = random_inputs(program, 1)
    lava = run_on_lava(program, inputs, time_limit=60)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


def test_two_synapses_into_one_population_add():
    rng = np.random.default_rng(0)
    both = (
        DenseSynapse("input", rng.integers(-9, 9, (5, 6))),
        DenseSynapse("input", rng.integers(-9, 9, (5, 6)), weight_exponent=1),
    )
    populations = (
        Population("sum", (5,), both, np.zeros(5), IntegrateAndFire([20] * 5, [10] * 5)),
        Population(
            "readout",
            (2,),
            (DenseSynapse("sum", rng.integers(-9, 9, (2, 5))),),
            [0, 1],
            Readout(1.0),
        ),
    )
    program = IntProgram("sum", InputQuantizer((6,), 1.0, bits=3), populations, Schedule(3))
    spikes, membrane = numpy_loop.run(program, inputs := random_inputs(program, 3))
    assert_recording_is(simulate(program, inputs), spikes, membrane)


def test_sums_that_stock_lava_would_wrap_are_refused():
    """Watched programs may have sums no register holds; stock synapses would wrap them."""
    weight = np.full((1, 70_000), 127)
    quantizer = InputQuantizer((70_000,), 1.0)
    readout = Population("readout", (1,), (DenseSynapse("input", weight),), [0], Readout(1.0))
    dense = IntProgram("wide", quantizer, (readout,), Schedule(1), watch_ranges=True)
    with pytest.raises(TargetError, match="readout: stock Dense may wrap"):
        run_on_lava(dense, np.ones((1, 70_000), np.int32), time_limit=60)
    conv = ConvSynapse("input", np.full((1, 4, 16, 16), 127))
    cell = Population("conv", (1, 1, 1), (conv,), [0], IntegrateAndFire([9], [4]))
    out = Population("out", (1,), (DenseSynapse("conv", [[1]]),), [0], Readout(1.0))
    square = IntProgram("square", InputQuantizer((4, 16, 16), 1.0), (cell, out), Schedule(1))
    with pytest.raises(TargetError, match="conv: stock Conv may wrap"):
        run_on_lava(square, np.ones((1, 4, 16, 16), np.int32), time_limit=60)
