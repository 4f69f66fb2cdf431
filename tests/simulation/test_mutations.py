"""Changing any one number in one of two paths turns the comparison red."""

from dataclasses import replace

import numpy as np
import pytest

from exports.lava import run_on_lava
from tests.networks import random_inputs, random_program
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import Readout
from toolchain.recording import compare
from toolchain.recording.compare import SCHEDULE
from toolchain.simulator.reference import simulate

MUTATIONS = 72
STEPS = {"if": Schedule(4), "cif": Schedule(3, 4)}
KINDS = ("weight", "bias", "threshold", "initial_potential")


@pytest.fixture(scope="module", params=["if", "cif"])
def lava_run(request):
    """One Lava run of the unchanged program, on samples that exercise every weight."""
    program = random_program(
        6, request.param, shape=(1, 4, 4), hidden=(5,), schedule=STEPS[request.param]
    )
    inputs = random_inputs(program, 24)
    for layer, counts in simulate(program, inputs).spikes.items():
        assert np.abs(counts).sum(axis=(0, 1)).all(), f"a neuron of {layer} never fires"
    return program, inputs, run_on_lava(program, inputs, time_limit=120)


def mutated(program, rng):
    """`program` with one number of one array one higher or lower; and where that is."""
    while True:
        index = int(rng.integers(len(program.populations)))
        population = program.populations[index]
        kind = str(rng.choice(KINDS))
        is_readout = isinstance(population.neuron, Readout)
        if kind in ("threshold", "initial_potential") and is_readout:
            continue
        if kind == "weight":
            values = np.array(population.synapses[0].weight)
        elif kind == "bias":
            values = np.array(population.bias)
        else:
            values = np.array(getattr(population.neuron, kind))
        place = tuple(int(i) for i in rng.integers(0, values.shape))
        step = int(rng.choice([-1, 1]))
        values[place] += step
        if values[place] > 127 and kind == "weight":
            values[place] -= 2
        if kind == "weight":
            synapse = replace(population.synapses[0], weight=values)
            changed = replace(population, synapses=(synapse,))
        elif kind == "bias":
            changed = replace(population, bias=values)
        else:
            changed = replace(population, neuron=replace(population.neuron, **{kind: values}))
        populations = list(program.populations)
        populations[index] = changed
        return replace(program, populations=tuple(populations)), (population.name, kind, place)


def test_unchanged_is_green(lava_run):
    program, inputs, lava = lava_run
    assert compare(simulate(program, inputs), lava).equal


@pytest.mark.parametrize("seed", range(MUTATIONS // 2))
def test_one_changed_number_is_red(lava_run, seed):
    program, inputs, lava = lava_run
    changed, (layer, kind, place) = mutated(program, np.random.default_rng(seed))
    comparison = compare(simulate(changed, inputs), lava)
    assert not comparison.same_program
    assert comparison.total > 0, (layer, kind, place)
    assert comparison.first is not None
    assert comparison.first.layer == layer, (kind, place)


@pytest.mark.parametrize("change", [(1, 0), (-1, 0), (0, 1), (-1, 1), (1, -1)])
def test_a_changed_schedule_is_red(lava_run, change):
    program, inputs, lava = lava_run
    schedule = program.schedule
    wake, sleep = schedule.wake_steps + change[0], schedule.sleep_steps + change[1]
    if sleep < 0:
        sleep = 1
    other = simulate(replace(program, schedule=Schedule(wake, sleep)), inputs)
    comparison = compare(other, lava)
    assert not comparison.equal
    assert comparison.mismatches[SCHEDULE] >= 1
    assert comparison.first.layer == SCHEDULE
    # Not only the declared numbers: the bits differ as well.
    if wake < schedule.wake_steps or sleep < schedule.sleep_steps:
        assert comparison.total > comparison.mismatches[SCHEDULE]


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_number_on_lavas_side_is_red(seed):
    """The other way round: the changed program runs on Lava."""
    kind = ("if", "cif")[seed % 2]
    program = random_program(6, kind, shape=(1, 4, 4), hidden=(5,), schedule=STEPS[kind])
    inputs = random_inputs(program, 12)
    changed, (layer, what, place) = mutated(program, np.random.default_rng(100 + seed))
    comparison = compare(simulate(program, inputs), run_on_lava(changed, inputs, time_limit=60))
    assert comparison.total > 0, (layer, what, place)
    assert comparison.first is not None
    assert comparison.first.layer == layer
