"""Lava against the reference simulator and the closed form, on real images."""

import numpy as np
import pytest

from exports.lava import run_on_lava
from tests.oracles import closed_form
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.program.int_program import Schedule
from toolchain.recording import compare
from toolchain.simulator.reference import simulate

IMAGES = 6


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["digits_conv", "digits_dense", "fashion_conv", "fashion_dense"])
def test_if_networks_bit_by_bit(name, steps, limits, request):
    trained = request.getfixturevalue(name)
    conversion = convert(
        trained.network.model,
        trained.network.quantizer,
        ConversionOptions("if", Schedule(steps)),
        limits,
        name=name,
    )
    program = conversion.program
    inputs = program.input.quantize(trained.test.real()[:IMAGES])
    reference = simulate(program, inputs)
    comparison = compare(reference, run_on_lava(program, inputs, time_limit=120))
    assert comparison.equal, comparison.first
    assert comparison.granularity == "every value"
    assert sum(int(np.abs(s).sum()) for s in reference.spikes.values()) > 0


@pytest.mark.parametrize("name", ["digits_conv", "digits_cqrelu", "fashion_conv"])
def test_cif_networks_bit_by_bit_and_lossless(name, limits, request):
    trained = request.getfixturevalue(name)
    program = convert(
        trained.network.model,
        trained.network.quantizer,
        ConversionOptions("cif", Schedule(4, 12)),
        limits,
        name=name,
    ).program
    inputs = program.input.quantize(trained.test.real()[:IMAGES])
    lava = run_on_lava(program, inputs, time_limit=120)
    comparison = compare(simulate(program, inputs), lava)
    assert comparison.equal, comparison.first
    assert sum(lava.meta["unsettled"].values()) == 0
    for index, sample in enumerate(inputs):
        counts, logits = closed_form.counts_and_logits(program, sample)
        assert np.array_equal(lava.logits[index], logits)
        for layer, array in lava.counts.items():
            assert np.array_equal(array[index], counts[layer])
