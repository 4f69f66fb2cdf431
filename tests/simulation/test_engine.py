"""The fast engine against the reference simulator, bit by bit, and against hand-computed steps."""

from concurrent.futures import ThreadPoolExecutor
from threading import get_ident

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.comparing import assert_same
from tests.networks import (
    BLOCKS,
    branched_program,
    fits,
    one_convolution,
    random_inputs,
    random_program,
)
from tests.strategies import CONVS, KINDS, SCHEDULES, SHARES, choosing
from toolchain.engine import dense_sums, engine, layers, neuron_layout, synaptic_sum
from toolchain.engine.dense_sums import Arithmetic, choose_arithmetic
from toolchain.engine.engine import Detail, Engine
from toolchain.engine.events import EventSum
from toolchain.engine.neuron_layout import Rows, in_threads
from toolchain.engine.spike_encoding import CodedSpikes, coded_offset
from toolchain.errors import ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse
from toolchain.simulator.reference import simulate
from toolchain.threads import allowed_threads, share, slices


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chains(data):
    kind = data.draw(KINDS)
    convs, seed = data.draw(CONVS), data.draw(st.integers(0, 999))
    assume(fits((2, 7, 6), convs))
    program = random_program(
        seed,
        kind,
        (2, 7, 6),
        convs,
        schedule=data.draw(SCHEDULES[kind]),
        signed_input=data.draw(st.booleans()),
    )
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_branches(data):
    kind, seed = data.draw(KINDS), data.draw(st.integers(0, 999))
    blocks = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    program = branched_program(
        seed, kind, blocks, schedule=data.draw(SCHEDULES[kind]), low=-9, high=9
    )
    inputs = random_inputs(program, data.draw(st.integers(1, 4)), seed)
    assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@pytest.mark.parametrize("forced", [Arithmetic.FLOAT32, Arithmetic.FLOAT64])
def test_every_arithmetic_gives_the_same_bits(forced, monkeypatch):
    monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: forced)
    for kind, schedule in (("if", Schedule(5)), ("cif", Schedule(3, 4))):
        program = branched_program(3, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
        assert_same(program, random_inputs(program, 3))


def test_int8_is_used_where_it_is_exact_and_only_there():
    small = one_convolution(np.full((1, 1, 3, 3), 127)).populations[0].synapses[0]
    wide = one_convolution(np.full((1, 1, 3, 3), 128)).populations[0].synapses[0]
    expected = Arithmetic.INT8 if dense_sums.has_int8() else Arithmetic.FLOAT32
    assert choose_arithmetic("conv", small, IntRange(-1, 1)) is expected
    assert choose_arithmetic("conv", small, IntRange(0, 255)) is expected
    assert choose_arithmetic("conv", small, IntRange(-1, 255)) is Arithmetic.FLOAT32
    assert choose_arithmetic("conv", wide, IntRange(0, 1)) is Arithmetic.FLOAT32
    # 9 * 127 * 14679 is the last multiple below 2^24.
    assert choose_arithmetic("conv", small, IntRange(0, 14678)) is Arithmetic.FLOAT32
    assert choose_arithmetic("conv", small, IntRange(0, 14679)) is Arithmetic.FLOAT64


def test_without_vnni_no_int8(monkeypatch):
    monkeypatch.setattr(dense_sums, "has_int8", lambda: False)
    synapse = one_convolution(np.ones((1, 1, 3, 3), int)).populations[0].synapses[0]
    assert choose_arithmetic("conv", synapse, IntRange(0, 1)) is Arithmetic.FLOAT32


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (12, False), (12, True)])
def test_largest_inputs_and_weights(bits, signed):
    # The extremes meet: -128 weights on the largest and smallest graded spikes.
    program = one_convolution(np.full((1, 1, 3, 3), -128), bits, signed)
    low, high = program.input.range.low, program.input.range.high
    inputs = np.stack([np.full((1, 3, 3), low), np.full((1, 3, 3), high)]).astype(np.int32)
    assert_same(program, inputs)


def test_if_by_hand():
    # theta 10, v0 5, current 3 * 2 + 1 = 7: spikes 1 0 1 1, potentials 2 9 6 3.
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[3]]),), [1], IntegrateAndFire([10], [5])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[4]]),), [0], Readout(1.0))
    program = IntProgram("one", InputQuantizer((1,), 1.0), (cell, readout), Schedule(4))
    (block,) = Engine(program).run(np.array([[2]]), Detail.EVERYTHING)
    assert block.spikes["cell"].ravel().tolist() == [1, 0, 1, 1]
    assert block.membrane["cell"].ravel().tolist() == [2, 9, 6, 3]
    assert block.readout.ravel().tolist() == [4, 4, 8, 12]


def test_blocks_never_mix_wake_and_sleep():
    program = random_program(1, "cif", schedule=Schedule(5, 3))
    blocks = list(Engine(program, block=4).run(random_inputs(program, 2)))
    assert [(b.first, b.steps, b.awake) for b in blocks] == [
        (0, 4, True),
        (4, 1, True),
        (5, 3, False),
    ]
    assert all(not b.spikes and not b.membrane for b in blocks)


def test_passes_cover_all_samples_in_order():
    program = random_program(2)
    inputs = random_inputs(program, 7)
    expected = simulate(program, inputs).logits
    engine = Engine(program)
    engine.samples = 3
    passes = [(where, list(blocks)) for where, blocks in engine.passes(inputs)]
    assert [where for where, _ in passes] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert np.array_equal(np.concatenate([b[-1].readout[-1] for _, b in passes]), expected)


def test_a_state_out_of_range_is_named():
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[100]]),), [0], IntegrateAndFire([10], [0])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1,), 1.0)
    program = IntProgram("hot", quantizer, (cell, readout), Schedule(9), state_bits=16)
    assert_same(program, np.array([[3]]))
    with pytest.raises(ValueRangeError, match="membrane potential") as engine:
        list(Engine(program).run(np.array([[255]])))
    with pytest.raises(ValueRangeError, match="membrane potential"):
        simulate(program, np.array([[255]]))
    assert engine.value.node == "cell"


def test_states_beyond_int32_are_watched_not_wrapped():
    # 255 * 2^20 per step and theta 2^30: after 9 steps it would be beyond 2^31 without a reset.
    cell = Population(
        "cell",
        (1,),
        (DenseSynapse("input", [[1 << 12]], weight_exponent=12),),
        [0],
        IntegrateAndFire([1 << 30], [0]),
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1,), 1.0)
    program = IntProgram(
        "far", quantizer, (cell, readout), Schedule(9), weight_bits=16, state_bits=32
    )
    with pytest.raises(ValueRangeError, match="left its range") as found:
        list(Engine(program).run(np.array([[255]])))
    assert found.value.node == "cell"


def test_inputs_that_do_not_fit_are_refused():
    program = random_program(1)
    with pytest.raises(ProgramError, match="inputs do not fit"):
        next(Engine(program).run(np.zeros((1, 1), int)))
    too_large = random_inputs(program, 1) * 0 + 16
    with pytest.raises(ValueRangeError):
        next(Engine(program).run(too_large))


@pytest.fixture
def two_threads(monkeypatch):
    """Torch with two threads; no work is too small for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(neuron_layout, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(layers, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(engine, "WORTH_THREADS", 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("share", SHARES)
def test_threads_share_samples_or_planes(samples, share):
    program = branched_program(5, "cif", sorted(BLOCKS), schedule=Schedule(3, 3), low=-9, high=9)
    with choosing(SHARES[share]):
        assert_same(program, random_inputs(program, samples))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("share", SHARES)
def test_no_thread_takes_sums_that_another_finds_wrong(share, monkeypatch):
    """Both begin at the same time; events, and then products in float32, are off by one."""

    def wrong_events(self, arriving, numbers, which, counts, total):
        honest(self, arriving, numbers, which, counts, total)
        total[which] += 1

    def wrong_products(self, coded, offset):
        return multiply(self, coded, offset) + (self._weight.dtype is torch.float32)

    honest, multiply = EventSum.put, dense_sums._FloatConvolution.__call__
    monkeypatch.setattr(EventSum, "put", wrong_events)
    monkeypatch.setattr(dense_sums._FloatConvolution, "__call__", wrong_products)
    monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: Arithmetic.FLOAT32)
    program = random_program(2, shape=(2, 9, 9), convs=((4, 3, 1, 1, 1, 1), (5, 3, 1, 1, 1, 1)))
    with choosing(SHARES[share]):
        assert_same(program, random_inputs(program, 6))


@pytest.mark.usefixtures("two_threads")
def test_threads_join_their_extremes():
    seen = []

    def kernel(values, start, stop):
        seen.append((start, stop))
        part = values[start:stop]
        return part.min(), part.max(), -part.max(), -part.min()

    values = np.array([77, 3, -4, 1, 9, 2, 88])
    assert in_threads(kernel, (1, 6), 1 << 30, values) == (-4, 9, -9, 4)
    assert sorted(seen) == [(1, 3), (3, 6)]
    seen.clear()
    assert in_threads(kernel, (1, 3), 1, values) == (-4, 3, -3, 4)
    assert seen == [(1, 3)]


@pytest.mark.usefixtures("two_threads")
def test_torch_works_alone_in_each_thread():
    """In the calling thread and in new ones it has as many threads as before."""
    inside = share(lambda part: (part, torch.get_num_threads(), allowed_threads()), range(5))
    assert inside == [(part, 1, 1) for part in range(5)]
    nested = share(lambda part: share(lambda n: n * part, [1, 2]), [3, 4])
    assert nested == [[3, 6], [4, 8]]
    assert share(get_ident, [], torch_works=True) == []
    assert share(lambda _: get_ident(), [0]) == [get_ident()]
    assert share(lambda _: get_ident(), [0], torch_works=True) != [get_ident()]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        share(lambda part: 1 // part, [1, 0])


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("count", "most"), [(0, 9), (1, 9), (5, 0), (5, 1), (5, 9), (2, 2)])
def test_slices_cover_all(count, most):
    found = slices(count, most)
    assert 1 <= len(found) <= max(1, min(2, most))
    assert [i for part in found for i in range(part.start, part.stop)] == list(range(count))


@pytest.mark.parametrize("plane", [(32, 32, 16), (1, 1, 4096), (5, 7, 3), (1, 1, 1)])
@pytest.mark.parametrize(("samples", "chunk"), [(1, 1), (3, 2), (64, 64), (64, 5), (6, 4)])
def test_rows_hold_every_neuron_and_whole_sets_of_channels(plane, samples, chunk):
    laid_out = Rows.of_layer(samples, plane, chunk)
    assert laid_out.count * laid_out.width == samples * np.prod(plane)
    assert laid_out.width % plane[2] == 0
    assert laid_out.width <= max(2048, plane[2])
    place = 0
    for start in range(0, samples, chunk):
        first, end = laid_out.between(slice(start, min(start + chunk, samples)))
        assert first == place
        assert first * laid_out.width == start * np.prod(plane)
        place = end
    assert place == laid_out.count


@pytest.mark.parametrize("currents", [1, 3000, 20_000])
def test_layers_in_parts_of_the_samples(currents, monkeypatch):
    """A sample at a time, a few with a rest, and all."""
    monkeypatch.setattr(layers, "CURRENTS", currents)
    for kind, schedule in (("if", Schedule(5)), ("cif", Schedule(3, 4))):
        program = branched_program(4, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
        assert_same(program, random_inputs(program, 7))


@pytest.mark.parametrize(
    ("spikes", "offset"),
    [((0, 1), 0), ((-1, 1), 1), ((0, 255), 0), ((-128, 127), 128), ((3, 9), 0)],
)
def test_spikes_fit_bytes(spikes, offset):
    assert coded_offset(IntRange(*spikes)) == offset


@pytest.mark.parametrize("spikes", [(0, 256), (-1, 255), (-129, 127)])
def test_spikes_that_do_not_fit_bytes(spikes):
    assert coded_offset(IntRange(*spikes)) is None


def test_input_keeps_its_values_whatever_its_width():
    inputs = np.arange(48).reshape(2, 2, 3, 2, 2) - 7
    for reach in (IntRange(-7, 40), IntRange(-2048, 2047)):
        coded = CodedSpikes.of_input(inputs, reach)
        back = coded.values.astype(int) - coded.offset
        assert np.array_equal(back.transpose(0, 1, 4, 2, 3), inputs)


def test_active_steps_end_with_the_last_spike():
    cell = Population(
        "cell",
        (1,),
        (DenseSynapse("input", [[14]]),),
        [0],
        ConsistentIntegrateAndFire([10], [0]),
    )
    late = Population(
        "late", (1,), (DenseSynapse("cell", [[4]]),), [0], ConsistentIntegrateAndFire([9], [0])
    )
    readout = Population("readout", (1,), (DenseSynapse("late", [[1]]),), [0], Readout(1.0))
    program = IntProgram("late", InputQuantizer((1,), 1.0), (cell, late, readout), Schedule(3, 4))
    # cell fires at steps 1 2 3; late gets 4 8 12 and fires at step 3; then all is silent.
    blocks = list(Engine(program).run(np.array([[1]]), Detail.SPIKES))
    assert [b.active_steps for b in blocks] == [3, 0, 0]
