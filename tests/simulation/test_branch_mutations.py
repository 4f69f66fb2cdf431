"""Any one change to a branched program, in numbers or in structure, turns the comparison red."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from exports.lava import run_on_lava
from exports.netx import read_net, write_net
from tests.networks import branched_program, random_inputs
from toolchain.errors import ProgramError
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import IntegrateAndFire, LIPool, Readout, Relay
from toolchain.recording import compare
from toolchain.simulator.reference import simulate

STEPS = {"if": Schedule(4), "cif": Schedule(3, 4)}
SEED = 38
MUTATIONS = 24


@pytest.fixture(scope="module", params=["if", "cif"])
def lava_run(request):
    """One Lava run of the unchanged program, on samples that make every channel fire."""
    kind = request.param
    program = branched_program(
        SEED, kind, ("residual", "max", "sum"), shape=(1, 8, 8), schedule=STEPS[kind]
    )
    inputs = random_inputs(program, 24)
    for layer, spikes in simulate(program, inputs).spikes.items():
        assert np.abs(spikes).sum(axis=(0, 1, 3, 4)).all(), f"a channel of {layer} never fires"
    pooled = simulate(program, inputs).spikes["max1"]
    assert np.abs(pooled).sum(axis=(0, 1)).all(), "a spike the relay sums never comes"
    return program, inputs, run_on_lava(program, inputs, time_limit=200)


def with_population(program, changed):
    populations = [changed if p.name == changed.name else p for p in program.populations]
    return replace(program, populations=tuple(populations))


def with_synapse(program, name, index, **changes):
    population = program.population(name)
    synapses = list(population.synapses)
    synapses[index] = replace(synapses[index], **changes)
    return with_population(program, replace(population, synapses=tuple(synapses)))


def numbers(population):
    """What can be changed in a population: (what, index of the synapse or None, array)."""
    found = [
        (what, index, array)
        for index, synapse in enumerate(population.synapses)
        for what, array in synapse.arrays().items()
    ]
    if not isinstance(population.neuron, LIPool | Relay):
        found.append(("bias", None, population.bias))
    return found + [(what, None, array) for what, array in population.neuron.arrays().items()]


def mutated(program, rng):
    """`program` with one number of one array one higher or lower; and where that is."""
    choices = [(p, *n) for p in program.populations for n in numbers(p)]
    population, what, index, array = choices[int(rng.integers(len(choices)))]
    values = np.array(array)
    place = tuple(int(i) for i in rng.integers(0, values.shape))
    values[place] += -1 if values[place] > 1 else 1
    where = (population.name, what, index, place)
    if what == "weight":
        return with_synapse(program, population.name, index, weight=values), where
    if what == "bias":
        return with_population(program, replace(population, bias=values)), where
    neuron = replace(population.neuron, **{what: values})
    return with_population(program, replace(population, neuron=neuron)), where


def assert_red(changed, lava_run, layer):
    """What runs on the reference simulator differs from Lava's bits, first in `layer`."""
    program, inputs, lava = lava_run
    assert changed.hash != program.hash
    comparison = compare(simulate(changed, inputs), lava)
    assert not comparison.same_program
    assert comparison.total > 0
    assert comparison.first.layer == layer


def test_unchanged_is_green(lava_run):
    program, inputs, lava = lava_run
    assert compare(simulate(program, inputs), lava).equal


@pytest.mark.parametrize("seed", range(MUTATIONS))
def test_one_changed_number_is_red(lava_run, seed):
    changed, where = mutated(lava_run[0], np.random.default_rng(seed))
    assert_red(changed, lava_run, where[0])


def test_a_skip_from_elsewhere_is_red(lava_run):
    assert_red(
        with_synapse(lava_run[0], "residual0", 1, source="residual0a"), lava_run, "residual0"
    )


def test_a_skip_left_out_is_red(lava_run):
    for name in ("residual0", "readout"):
        population = lava_run[0].population(name)
        short = replace(population, synapses=population.synapses[:1])
        assert_red(with_population(lava_run[0], short), lava_run, name)


def test_another_exponent_is_red(lava_run):
    exponent = lava_run[0].population("residual0").synapses[1].weight_exponent
    changed = with_synapse(lava_run[0], "residual0", 1, weight_exponent=exponent + 1)
    assert_red(changed, lava_run, "residual0")


def test_another_window_is_red(lava_run):
    """Every smaller window that gives the same shape: another maximum somewhere."""
    program = lava_run[0]
    pool = program.population("max1")
    (window,) = pool.synapses
    tried = 0
    for kernel in product(range(1, window.kernel[0] + 1), range(1, window.kernel[1] + 1)):
        for padding in product(range(kernel[0] // 2 + 1), range(kernel[1] // 2 + 1)):
            other = replace(window, kernel=kernel, padding=padding)
            try:
                shape = other.output_shape(program.source_shape(window.source))
            except ProgramError:
                continue
            if shape == pool.shape and kernel != window.kernel:
                tried += 1
                changed = with_population(program, replace(pool, synapses=(other,)))
                assert_red(changed, lava_run, "max1")
    assert tried


def test_a_relay_that_fires_once_a_step_is_red(lava_run):
    """IF with threshold 1 in place of the relay: equal for unary sums, not for graded ones."""
    relay = lava_run[0].population("sum2p")
    channels = relay.shape[0]
    cell = IntegrateAndFire([1] * channels, [0] * channels)
    assert_red(with_population(lava_run[0], replace(relay, neuron=cell)), lava_run, "sum2p")


@pytest.mark.parametrize("seed", range(8))
def test_the_file_tells_changed_numbers_apart(lava_run, seed, tmp_path):
    """Two programs that differ in one number are two files, each read back as what it was."""
    program = lava_run[0]
    changed, where = mutated(program, np.random.default_rng(500 + seed))
    write_net(changed, tmp_path / "a.net")
    back = read_net(tmp_path / "a.net")
    assert back.hash == changed.hash != program.hash, where
    assert isinstance(back.readout.neuron, Readout)


@pytest.mark.parametrize("kind", ["if", "cif"])
def test_a_changed_number_on_lavas_side_is_red(kind):
    program = branched_program(
        SEED, kind, ("residual", "max", "sum"), shape=(1, 8, 8), schedule=STEPS[kind]
    )
    inputs = random_inputs(program, 12)
    changed, where = mutated(program, np.random.default_rng(3))
    comparison = compare(simulate(program, inputs), run_on_lava(changed, inputs, time_limit=120))
    assert comparison.total > 0, where
    assert comparison.first.layer == where[0]
