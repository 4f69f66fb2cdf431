"""Settled CIF networks equal a plain integer network without a time axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comparing import assert_lossless
from tests.networks import random_inputs, random_program
from tests.oracles import closed_form
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.engine.settle import settle_time
from toolchain.errors import ConversionError
from toolchain.program.int_program import Schedule
from toolchain.simulator.quantized_network import quantized_counts
from toolchain.simulator.reference import simulate


def restless():
    """A network that needs some sleep."""
    return random_program(2, "cif", hidden=(9, 9), schedule=Schedule(4, 0), signed_input=True)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), q=st.integers(1, 8), depth=st.integers(0, 3))
def test_random_networks_settle_to_the_closed_form(seed, q, depth):
    program = random_program(
        seed, "cif", hidden=(6,) * depth, schedule=Schedule(q, 60), signed_input=True
    )
    inputs = random_inputs(program, 4, seed)
    assert_lossless(program, inputs, simulate(program, inputs))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), depth=st.integers(0, 3))
def test_one_step_of_graded_neurons_is_the_closed_form(seed, depth):
    program = random_program(
        seed, "graded", hidden=(6,) * depth, schedule=Schedule(1), signed_input=True
    )
    inputs = random_inputs(program, 4, seed)
    recording = simulate(program, inputs)
    counts, outputs = quantized_counts(program, inputs)
    for index, sample in enumerate(inputs):
        expected, logits = closed_form.counts_and_logits(program, sample)
        assert np.array_equal(recording.logits[index], logits)
        assert np.array_equal(outputs["readout"][index], logits)
        for layer, found in recording.counts.items():
            assert np.array_equal(found[index], expected[layer]), layer
            assert np.array_equal(counts[layer][index], expected[layer]), layer


@pytest.mark.parametrize("name", ["digits_conv", "digits_cqrelu", "digits_dense"])
def test_trained_networks_are_lossless(name, limits, request):
    trained = request.getfixturevalue(name)
    conversion = convert(
        trained.network.model,
        trained.network.quantizer,
        ConversionOptions("cif", Schedule(4, 24)),
        limits,
        name=name,
    )
    inputs = conversion.program.input.quantize(trained.test.real()[:40])
    assert_lossless(conversion.program, inputs, simulate(conversion.program, inputs))


def test_settle_time_is_the_smallest_that_settles():
    program = restless()
    inputs = random_inputs(program, 6)
    shortest = settle_time(program, inputs)
    assert shortest > 0

    def unsettled(sleep):
        from dataclasses import replace

        longer = replace(program, schedule=Schedule(4, sleep))
        return sum(simulate(longer, inputs).meta["unsettled"].values())

    assert unsettled(shortest) == 0
    assert unsettled(shortest - 1) > 0


def test_too_few_sleep_steps_are_noticed():
    program = restless()
    recording = simulate(program, random_inputs(program, 6))
    assert sum(recording.meta["unsettled"].values()) > 0


def test_cif_with_other_levels_than_trained_is_refused(digits_conv, limits):
    with pytest.raises(ConversionError, match=r"features\.2.*as many wake steps"):
        convert(
            digits_conv.network.model,
            digits_conv.network.quantizer,
            ConversionOptions("cif", Schedule(3, 9)),
            limits,
            name="digits",
        )
