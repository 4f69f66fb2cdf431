"""The range analysis contains every run, and is exact where it says so."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import random_inputs, random_program
from tests.oracles import numpy_loop
from tests.strategies import KINDS
from toolchain.errors import UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse, prove
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import GradedIntegrateAndFire, IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    wake=st.integers(1, 6),
    sleep=st.integers(0, 6),
    signed=st.booleans(),
)
def test_bounds_contain_every_observed_state(seed, kind, wake, sleep, signed):
    program = random_program(
        seed, kind, hidden=(5, 4), schedule=Schedule(wake, sleep), signed_input=signed
    )
    inputs = random_inputs(program, 4, seed)
    inputs[0], inputs[1] = program.input.range.high, program.input.range.low
    _, membrane = numpy_loop.run(program, inputs)
    for bound in analyse(program):
        observed = membrane[bound.name]
        assert bound.state.contains(int(observed.min()), int(observed.max())), bound


def tiny(weights, bias, neuron, steps):
    return IntProgram(
        "tiny",
        InputQuantizer((2,), 1.0, bits=2, signed=False),
        (
            Population("cell", (1,), (DenseSynapse("input", [weights]),), [bias], neuron),
            Population("readout", (1,), (DenseSynapse("cell", [[3]]),), [-1], Readout(1.0)),
        ),
        Schedule(steps),
    )


@pytest.mark.parametrize("weights", list(product((-3, 0, 2), repeat=2)))
@pytest.mark.parametrize("bias", [-2, 0, 5])
def test_every_input_of_a_tiny_neuron(weights, bias):
    """Exhaustive: all 16 inputs; currents are attained exactly, states contained."""
    program = tiny(list(weights), bias, IntegrateAndFire([4], [2]), 3)
    inputs = np.array(list(product(range(4), repeat=2)), np.int32)
    _, membrane = numpy_loop.run(program, inputs)
    cell, readout = analyse(program)
    sums = inputs @ np.array(weights)
    assert cell.current == IntRange(int(sums.min()), int(sums.max()))
    for bound in (cell, readout):
        assert bound.state.contains(
            int(membrane[bound.name].min()), int(membrane[bound.name].max())
        )


@settings(max_examples=300)
@given(
    theta=st.integers(1, 6),
    most=st.integers(2, 4),
    ends=st.tuples(st.integers(-9, 40), st.integers(-9, 40)),
)
def test_graded_bounds_after_firing_are_reached(theta, most, ends):
    """Exhaustive over the interval: the bounds are its image's lowest and highest value."""
    low, high = sorted(ends)
    left = [v - theta * max(0, min(most, v // theta)) for v in range(low, high + 1)]
    neuron = GradedIntegrateAndFire([theta], [0], most)
    found = neuron.after_firing(np.array([low]), np.array([high]))
    assert [int(v[0]) for v in found] == [min(left), max(left)]


def test_an_if_neuron_that_only_falls_reaches_its_bound():
    program = tiny([-3, -3], -1, IntegrateAndFire([4], [2]), 5)
    _, membrane = numpy_loop.run(program, np.array([[3, 3]]))
    assert analyse(program)[0].state.low == membrane["cell"].min() == 2 - 5 * 19


def test_what_cannot_be_proved_names_layer_and_bound():
    weight = np.full((1, 64, 16, 16), 127)
    population = Population(
        "deep.conv", (1, 1, 1), (ConvSynapse("input", weight),), [0], IntegrateAndFire([10], [5])
    )
    readout = Population("out", (2,), (DenseSynapse("deep.conv", [[1], [-1]]),), [0, 0], Readout(1))
    program = IntProgram(
        "large", InputQuantizer((64, 16, 16), 1.0), (population, readout), Schedule(4)
    )
    with pytest.raises(UnprovedRangeError) as error:
        prove(program)
    text = str(error.value)
    assert "deep.conv" in text
    assert str(255 * 127 * 64 * 256) in text
    assert "-8388608 .. 8388607" in text
    assert "watch_ranges=True" in text


def test_bits_decide(limits):
    program = random_program(1)
    worst = max(max(-b.state.low, b.state.high) for b in analyse(program))
    enough = int(worst).bit_length() + 1
    prove(replace(program, state_bits=enough))
    with pytest.raises(UnprovedRangeError):
        prove(replace(program, state_bits=enough - 1))
