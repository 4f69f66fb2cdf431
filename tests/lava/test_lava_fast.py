"""The fast Lava models against the reference simulator and the stock models, bit by bit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.lava import LavaModels, run_on_lava
from exports.lava.partition import even_cuts
from exports.lava.runner import CHUNK_SAMPLES
from exports.lava.stock_time import stock_seconds
from exports.netx import write_net
from hw_models.axes import lava_shape
from hw_models.block_layout import BlockLayout
from hw_models.fast.pipeline import Pipeline
from tests.command_line import fails
from tests.networks import BLOCKS, branched_program, random_inputs, random_program
from tests.strategies import KINDS, pooled_programs
from toolchain.errors import BackendRunError, TargetError
from toolchain.program.cuts import possible_cuts
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import INPUT, IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout, Relay
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate

CHAIN = ((4, 3, 1, 1, 1, 1), (6, 3, 2, 1, 1, 2), (6, 3, 1, 2, 2, 6))


class Kept:
    """A recorder that keeps every step."""

    def __init__(self):
        self.records = []

    def step(self, now, spikes, membrane):
        self.records.append((None if spikes is None else spikes.copy(), membrane.copy()))


def in_lavas_order(values):
    """(N, C, H, W) as (N, W, H, C)."""
    return values.transpose(0, *range(values.ndim - 1, 0, -1))


def run_pipelines(program, inputs, batch, cuts=()):
    """Spikes and membrane (T, N, ...) by population of pipelines in a row, without Lava."""
    batches = -(-len(inputs) // batch)
    traces = {p.name: Kept() for p in program.populations}
    pipelines = []
    for first, last in pairwise((0, *cuts, len(program.populations))):
        layout = BlockLayout(program, first, last, batch, batches)
        v = np.zeros(layout.state_size, np.int32)
        pipelines.append(Pipeline(layout, v, traces))
    clock = BlockLayout(program, 0, len(program.populations), batch, batches).clock(INPUT)
    padded = np.zeros((batches * batch, *program.input.shape), np.int32)
    padded[: len(inputs)] = inputs
    padded = in_lavas_order(padded)
    steps = program.schedule.num_steps
    for step in range(1, batches * steps + max(program.depths().values()) + 1):
        now = clock.at(step)
        sent = np.zeros((batch, *lava_shape(program.input.shape)), np.int32)
        if now is not None and clock.awake(now[1]):
            sent = padded[now[0] * batch : (now[0] + 1) * batch]
        for pipeline in pipelines:
            after = pipeline.step(step).copy()
            pipeline.receive(sent)
            sent = after
    return {name: _gathered(t.records, batch, len(inputs), steps) for name, t in traces.items()}


def _gathered(records, batch, count, steps):
    """(spikes, membrane) as (T, N, W, H, C)."""
    both = []
    for part in range(2):
        if records[0][part] is None:
            both.append(None)
            continue
        values = np.stack([r[part] for r in records]).reshape(
            -1, steps, batch, *records[0][part].shape[1:]
        )
        by_step = values.swapaxes(0, 1).reshape(steps, -1, *values.shape[3:])
        both.append(by_step[:, :count])
    return both


def assert_pipelines_agree(program, inputs, batch, cuts=()):
    expected = simulate(program, inputs)
    for name, (spikes, membrane) in run_pipelines(program, inputs, batch, cuts).items():
        for step in range(program.schedule.num_steps):
            wanted = in_lavas_order(expected.membrane[name][step])
            if not isinstance(program.population(name).neuron, Relay):
                assert np.array_equal(membrane[step], wanted), (name, step)
            if spikes is not None:
                wanted = in_lavas_order(expected.spikes[name][step])
                assert np.array_equal(spikes[step], wanted), (name, step)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pipelines_give_the_reference_bits(data):
    kind, seed = data.draw(KINDS), data.draw(st.integers(0, 999))
    schedule = Schedule(data.draw(st.integers(1, 6)))
    if kind == "cif":
        schedule = Schedule(schedule.wake_steps, data.draw(st.integers(0, 5)))
    if data.draw(st.booleans()):
        program = random_program(
            seed, kind, (2, 9, 7), CHAIN, schedule=schedule, signed_input=data.draw(st.booleans())
        )
    else:
        blocks = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
        skip = data.draw(st.booleans())
        program = branched_program(
            seed, kind, blocks, schedule=schedule, skip_to_readout=skip, low=-9, high=9
        )
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    places = possible_cuts(program)
    cuts = sorted(data.draw(st.sets(st.sampled_from(places)))) if places else ()
    assert_pipelines_agree(program, inputs, data.draw(st.integers(1, 3)), tuple(cuts))


@settings(max_examples=60, deadline=None)
@given(program=pooled_programs(), seed=st.integers(0, 99))
def test_pools_of_every_geometry(program, seed):
    assert_pipelines_agree(program, random_inputs(program, 3, seed), 2)


def test_a_layer_by_hand_on_the_fast_models():
    # theta 10, v0 5, current 3 * 2 + 1 = 7: spikes 1 0 1 1, potentials 2 9 6 3.
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[3]]),), [1], IntegrateAndFire([10], [5])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[4]]),), [0], Readout(1.0))
    program = IntProgram("one", InputQuantizer((1,), 1.0), (cell, readout), Schedule(4))
    recording = run_on_lava(program, np.array([[2]]), models=LavaModels.fast(), time_limit=120)
    assert recording.spikes["cell"].ravel().tolist() == [1, 0, 1, 1]
    assert recording.membrane["cell"].ravel().tolist() == [2, 9, 6, 3]
    assert recording.membrane["readout"].ravel().tolist() == [4, 4, 8, 12]


@pytest.mark.parametrize("models", [LavaModels.fast(1, 1), LavaModels.fast(1, 3)])
@pytest.mark.parametrize("kind", ["if", "cif", "graded"])
def test_branched_networks_on_lava(kind, models):
    schedule = Schedule(3, 4) if kind == "cif" else Schedule(4)
    program = branched_program(7, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
    inputs = random_inputs(program, 5, 1)
    found = run_on_lava(program, inputs, models=models, time_limit=120)
    comparison = compare(simulate(program, inputs), found)
    assert comparison.equal, comparison.first
    assert comparison.granularity == "every value"


def test_several_blocks_in_a_row_on_lava():
    program = random_program(4, "cif", (2, 9, 7), CHAIN, schedule=Schedule(3, 3))
    inputs = random_inputs(program, 5, 1)
    expected = simulate(program, inputs)
    for blocks in (2, len(program.populations)):
        models = LavaModels.fast(blocks, 2)
        found = run_on_lava(program, inputs, models=models, mode=Mode.FULL, time_limit=120)
        comparison = compare(expected, found)
        assert comparison.equal, comparison.first


@pytest.mark.parametrize("models", [LavaModels(), LavaModels.fast(batch=2)])
def test_spike_times_on_request(models):
    """Over two runs of Lava."""
    program = random_program(11, "cif", schedule=Schedule(3, 3))
    inputs = random_inputs(program, CHUNK_SAMPLES + 3, 1)
    expected = simulate(program, inputs, mode=Mode.EVENTS)
    found = run_on_lava(program, inputs, models=models, mode=Mode.EVENTS, time_limit=120)
    assert any((rows[:, 3] == -1).any() for rows in found.spike_times.values())
    for layer, rows in expected.spike_times.items():
        assert np.array_equal(found.spike_times[layer], rows), layer
    assert compare(expected, found).equal


def test_a_long_run_on_stock_synapses_is_announced(tmp_path):
    weight = np.ones((64, 64, 3, 3), int)
    conv = ConvSynapse("input", weight, padding=(1, 1))
    neuron = IntegrateAndFire(np.full(64, 9), np.zeros(64, int))
    layer = Population("conv", (64, 32, 32), (conv,), np.zeros(64, int), neuron)
    dense = DenseSynapse("conv", np.ones((2, 64 * 1024), int))
    readout = Population("readout", (2,), (dense,), [0, 0], Readout(1.0))
    program = IntProgram(
        "wide", InputQuantizer((64, 32, 32), 1.0, 1), (layer, readout), Schedule(4)
    )
    # Measured: 0.17 s per step of this convolution.
    assert 0.1 < stock_seconds(program, 1) / 4 < 0.25
    write_net(program, tmp_path / "wide.net")
    samples = np.zeros((400, 64, 32, 32), np.uint8)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=np.zeros(400, int))
    run = ["run", "wide.net", "--data", "npz:data.npz@test", "--backend", "lava", "-o", "a.npz"]
    stopped = fails(1, "did not end within 1 s", *run, "--time-limit", "1", cwd=tmp_path)
    assert "will take about 4 minutes; --models fast" in stopped.stdout + stopped.stderr


def test_the_two_models_of_a_block_agree():
    program = branched_program(2, "if", ["residual", "max"], low=-9, high=9)
    inputs = random_inputs(program, 3, 1)
    stock = run_on_lava(program, inputs, time_limit=120)
    fast = run_on_lava(program, inputs, models=LavaModels.fast(batch=2), time_limit=120)
    comparison = compare(stock, fast)
    assert comparison.equal, comparison.first


def test_cuts_lie_where_one_layer_passes():
    chain = random_program(0, convs=CHAIN, shape=(2, 9, 7))
    assert possible_cuts(chain) == [1, 2, 3, 4]
    skipping = branched_program(0, blocks=["residual", "max"])
    # The readout takes the stem as well: after it, two layers' spikes would pass anywhere.
    assert possible_cuts(skipping) == [1]
    plain = branched_program(0, blocks=["strided", "max"], skip_to_readout=False)
    # stem | strided0a strided0 | max1 | readout: not between the two of the block.
    assert [p.name for p in plain.populations] == [
        "stem",
        "strided0a",
        "strided0",
        "max1",
        "readout",
    ]
    assert possible_cuts(plain) == [1, 3, 4]


def test_cuts_share_the_work():
    # Multiply-adds: 9 * 4 * 100, 9 * 16 * 100, 9 * 16 * 100, 400 * 2 (borders less).
    populations, source = [], "input"
    for index, channels in enumerate((4, 4, 4)):
        before = 1 if source == "input" else 4
        weight = np.ones((channels, before, 3, 3), int)
        name = f"conv{index}"
        populations.append(
            Population(
                name,
                (channels, 10, 10),
                (ConvSynapse(source, weight, padding=(1, 1)),),
                np.zeros(channels, int),
                IntegrateAndFire(np.full(channels, 9), np.zeros(channels, int)),
            )
        )
        source = name
    dense = DenseSynapse(source, np.ones((2, 400), int))
    populations.append(Population("readout", (2,), (dense,), [0, 0], Readout(1.0)))
    quantizer = InputQuantizer((1, 10, 10), 1.0, bits=1)
    program = IntProgram("even", quantizer, tuple(populations), Schedule(2))
    assert even_cuts(program, 1) == ()
    assert even_cuts(program, 2) == (2,)
    assert even_cuts(program, 4) == (1, 2, 3)
    with pytest.raises(TargetError, match="cannot be cut into that many"):
        even_cuts(program, 5)


def test_a_block_has_one_way_in_and_one_out():
    program = branched_program(0, blocks=["residual"])
    assert BlockLayout(program, 1, len(program.populations)).source == "stem"
    with pytest.raises(TargetError, match="last layer only"):
        BlockLayout(program, 0, 2)
    with pytest.raises(TargetError, match="exactly one source"):
        BlockLayout(program, 2, len(program.populations))


def test_stock_models_take_one_sample_at_a_time():
    with pytest.raises(TargetError, match="one sample at a time"):
        LavaModels("fixed_pt", batch=2)
    with pytest.raises(TargetError, match="no such models"):
        LavaModels("slow")


def test_a_state_out_of_range_stops_the_run_and_is_named():
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[100]]),), [0], IntegrateAndFire([10], [0])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1,), 1.0)
    program = IntProgram("hot", quantizer, (cell, readout), Schedule(9), state_bits=16)
    with pytest.raises(BackendRunError, match=r"cell.*membrane potential|membrane potential"):
        run_on_lava(program, np.array([[255]]), models=LavaModels.fast(), time_limit=120)


def test_sums_beyond_32_bits_are_refused():
    weight = np.full((1, 4), 1 << 14)
    cell = Population(
        "cell",
        (1,),
        (DenseSynapse("input", weight, weight_exponent=10),),
        [0],
        IntegrateAndFire([10], [0]),
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((4,), 1.0)
    program = IntProgram(
        "wide", quantizer, (cell, readout), Schedule(2), weight_bits=16, state_bits=32
    )
    layout = BlockLayout(program, 0, 2)
    with pytest.raises(TargetError, match="add up in 32 bits"):
        Pipeline(layout, np.zeros(layout.state_size, np.int32), {})
