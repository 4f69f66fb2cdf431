"""How the engine sums up silent, sparse and dense planes, and spikes that reach one neuron."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.comparing import assert_same
from tests.networks import BLOCKS, Branches, branched_program, fits, random_inputs, random_program
from tests.oracles.numpy_loop import convolve
from tests.strategies import CONVS, KINDS, SCHEDULES, SHARES, choosing
from toolchain.engine import dense_sums, synaptic_sum
from toolchain.engine.dense_sums import pays_unrolled
from toolchain.engine.dispatch import count_spikes, sort_planes
from toolchain.engine.identity_synapses import is_direct, part_direct
from toolchain.engine.pool_factoring import as_pooled
from toolchain.engine.spike_encoding import CodedSpikes
from toolchain.engine.synaptic_sum import SynapticSum
from toolchain.int_range import IntRange
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


def with_spikes(*counts):
    """Planes (m, 2, 2, 100) with `counts` spikes, of -1 and 1 in turn."""
    planes = np.ones((len(counts), 400), np.uint8)
    for plane, count in zip(planes, counts, strict=True):
        plane[:count:2] = 2
        plane[1:count:2] = 0
    return planes.reshape(-1, 2, 2, 100)


def test_spikes_are_counted_by_their_size():
    planes = with_spikes(0, 1, 7, 400)
    assert count_spikes(planes, 1).tolist() == [0, 1, 7, 400]
    assert count_spikes(planes, 1, np.array([3, 1])).tolist() == [400, 1]
    graded = np.array([[[[5, 0, 255]]], [[[7, 7, 7]]]], np.uint8)
    assert count_spikes(graded, 7).tolist() == [2 + 7 + 248, 0]


def test_planes_are_sorted_by_their_spikes():
    counts = np.zeros(40, np.int64)
    counts[[7, 9, 20, 30]] = 900, 1, 100, 101
    found = sort_planes(counts, 100)
    assert found.dense[:2].tolist() == [7, 30]
    assert found.dense[2:4].tolist() == [20, 9]  # the busiest make up their number
    assert len(found.dense) == 8
    assert not len(found.sparse)
    assert sorted([*found.dense, *found.silent]) == list(range(40))


def test_the_busiest_of_the_sparse_come_first():
    counts = np.array([3, 0, 5, 9, 1, 0])
    found = sort_planes(counts, 9)
    assert not len(found.dense)
    assert found.sparse.tolist() == [3, 2, 0, 4]
    assert found.silent.tolist() == [1, 5]
    without = sort_planes(np.repeat(counts, 4), 0)
    assert without is None
    few = sort_planes(np.array([0] * 19 + [1]), 0)
    assert few.dense.tolist() == [19, 0, 1, 2, 3, 4, 5, 6]
    assert few.silent.tolist() == list(range(7, 19))


def test_busy_planes_are_all_convolved():
    assert sort_planes(np.array([0, 5, 5, 5, 5, 5]), 4) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data(), share=st.sampled_from(list(SHARES.values())))
def test_chains_of_chosen_planes(data, share):
    kind = data.draw(KINDS)
    convs, seed = data.draw(CONVS), data.draw(st.integers(0, 999))
    assume(fits((2, 7, 6), convs))
    program = random_program(seed, kind, (2, 7, 6), convs, schedule=data.draw(SCHEDULES[kind]))
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    with choosing(share):
        assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), share=st.sampled_from(list(SHARES.values())))
def test_branches_of_chosen_planes(data, share):
    kind, seed = data.draw(KINDS), data.draw(st.integers(0, 999))
    blocks = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    program = branched_program(
        seed, kind, blocks, schedule=data.draw(SCHEDULES[kind]), low=-9, high=9
    )
    inputs = random_inputs(program, 3, seed)
    with choosing(share):
        assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("forced", [dense_sums.Arithmetic.FLOAT32, dense_sums.Arithmetic.FLOAT64])
def test_chosen_planes_in_every_arithmetic(share, forced, monkeypatch):
    monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: forced)
    program = branched_program(3, "cif", sorted(BLOCKS), schedule=Schedule(3, 6), low=-9, high=9)
    with choosing(share):
        assert_same(program, random_inputs(program, 3))


def sum_of(synapse, source, reach, spikes, part=slice(0, 2)):
    """What `SynapticSum` makes of spikes (T, n, H, W, C), as (T, n, H, W, C)."""
    total = SynapticSum("conv", synapse, source, IntRange(*reach))
    coded = CodedSpikes((spikes - reach[0]).astype(np.uint8), -reach[0], source)
    return total(coded, part)


def test_a_silent_layer_sends_one_step_of_zeros():
    synapse = ConvSynapse("input", np.ones((3, 4, 3, 3), int), padding=(1, 1))
    found = sum_of(synapse, (4, 5, 5), (-1, 1), np.zeros((6, 2, 5, 5, 4)))
    assert found.shape == (1, 2, 5, 5, 3)
    assert not found.any()


@pytest.mark.parametrize(("last", "steps"), [(1, 2), (2, 2), (3, 3), (6, 6)])
def test_steps_after_the_last_spike_are_left_out(last, steps):
    synapse = ConvSynapse("input", np.ones((3, 4, 3, 3), int), padding=(1, 1))
    spikes = np.zeros((6, 3, 5, 5, 4))
    spikes[:last, 2, 2, 2, 1] = 1
    spikes[:, 0] = 1  # of no sample that is asked for
    found = sum_of(synapse, (4, 5, 5), (-1, 1), spikes, slice(1, 3))
    assert found.shape == (steps, 2, 5, 5, 3)
    assert (found[:last, 1, 1:4, 1:4] == 1).all()
    assert found[:last].sum() == last * 9 * 3


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=PAIR,
    stride=PAIR,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    window=st.sampled_from([(1, 2), (2, 2), (2, 3), (3, 1)]),
    groups=st.sampled_from([1, 2]),
    reach=st.sampled_from([(0, 1), (-1, 1), (-2, 3)]),
)
def test_blocks_of_equal_weights_are_pooled_before(
    seed, kernel, stride, padding, window, groups, reach
):
    """The sums are those of the whole kernel, by the plain loop."""
    rng = np.random.default_rng(seed)
    plane = (6, 6)
    blocks = rng.integers(-127, 128, (4, 4 // groups, *kernel))
    weight = blocks.repeat(window[0], 2).repeat(window[1], 3)
    stride = tuple(s * w for s, w in zip(stride, window, strict=True))
    padding = tuple(p * w for p, w in zip(padding, window, strict=True))
    assume(all(n + 2 * p >= k for n, p, k in zip(plane, padding, weight.shape[2:], strict=True)))
    synapse = ConvSynapse("input", weight, stride, padding, groups=groups)
    pooled = as_pooled(synapse, (4, *plane), IntRange(*reach))
    assert pooled is not None
    assert np.prod(pooled.window) >= np.prod(window)
    assert pooled.spikes == IntRange(*(v * int(np.prod(pooled.window)) for v in reach))
    spikes = rng.integers(reach[0], reach[1] + 1, (2, 2, *plane, 4))
    found = sum_of(synapse, (4, *plane), reach, spikes)
    for t, n in np.ndindex(2, 2):
        plain = spikes[t, n].transpose(2, 0, 1)
        expected = convolve(plain, weight, stride, padding, (1, 1), groups)
        assert np.array_equal(found[t, n].transpose(2, 0, 1), expected)


def test_a_folded_average_pool_is_found():
    blocks = np.arange(9).reshape(1, 1, 3, 3)
    folded = blocks.repeat(2, 2).repeat(2, 3)
    synapse = ConvSynapse("input", folded, (2, 2), (2, 2))
    found = as_pooled(synapse, (1, 8, 8), IntRange(0, 1))
    assert found.window == (2, 2)
    assert np.array_equal(found.synapse.weight, blocks)
    assert (found.synapse.stride, found.synapse.padding) == ((1, 1), (1, 1))
    assert found.spikes == IntRange(0, 4)


@pytest.mark.parametrize(
    ("change", "source", "reach"),
    [
        ({"weight": np.arange(36).reshape(1, 1, 6, 6)}, (1, 8, 8), (0, 1)),
        ({"stride": (1, 1)}, (1, 8, 8), (0, 1)),
        ({"stride": (3, 2), "padding": (2, 1)}, (1, 8, 8), (0, 1)),
        ({"padding": (1, 1)}, (1, 8, 8), (0, 1)),
        ({"dilation": (2, 2)}, (1, 16, 16), (0, 1)),
        ({}, (1, 7, 7), (0, 1)),
        ({}, (1, 8, 8), (0, 255)),
    ],
    ids=["weights", "stride", "both", "padding", "dilation", "plane", "bytes"],
)
def test_what_cannot_be_pooled_is_not(change, source, reach):
    """Neither blocks that shift under the outputs, nor sums that fit no byte."""
    given = {"weight": np.ones((1, 1, 6, 6), int), "stride": (2, 2), "padding": (2, 2)} | change
    assert as_pooled(ConvSynapse("input", **given), source, IntRange(*reach)) is None


@pytest.mark.parametrize("plane", [(2, 2), (1, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("forced", [None, *dense_sums.Arithmetic])
def test_small_planes_are_summed_as_matrices(plane, forced, monkeypatch):
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (5, 4, 3, 3))
    synapse = ConvSynapse("input", weight, padding=(1, 1))
    source = (4, *plane)
    assert pays_unrolled(synapse, source) == (plane != (2, 3))
    if forced:
        monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: forced)
    spikes = rng.integers(-1, 2, (3, 2, *plane, 4))
    with choosing(0):
        found = sum_of(synapse, source, (-1, 1), spikes)
    for t, n in np.ndindex(3, 2):
        expected = convolve(spikes[t, n].transpose(2, 0, 1), weight, (1, 1), (1, 1), (1, 1), 1)
        assert np.array_equal(found[t, n].transpose(2, 0, 1), expected)


@pytest.mark.parametrize(
    ("synapse", "expected"),
    [
        (ConvSynapse("a", np.ones((4, 1, 1, 1), int), groups=4), True),
        (ConvSynapse("a", np.ones((1, 1, 1, 1), int)), True),
        (ConvSynapse("a", np.ones((4, 4, 1, 1), int)), False),
        (ConvSynapse("a", np.ones((4, 1, 1, 1), int), groups=2), False),
        (ConvSynapse("a", np.ones((4, 1, 1, 1), int), (2, 2), groups=4), False),
        (ConvSynapse("a", np.ones((4, 1, 1, 1), int), padding=(0, 1), groups=4), False),
        (ConvSynapse("a", np.ones((4, 1, 3, 3), int), padding=(1, 1), groups=4), False),
        (DenseSynapse("a", [[1]]), False),
    ],
)
def test_what_reaches_one_neuron_each(synapse, expected):
    assert is_direct(synapse) is expected


@pytest.mark.parametrize("kind", ["if", "cif"])
def test_identities_in_two_synapses_and_from_two_sources(kind):
    """The first source's are weighted directly, the other's summed; both count."""
    net = Branches(8, kind, (3, 5, 4), -9, 9)
    first = net.add("first", [net.conv("input", 3)])
    second = net.add("second", [net.conv(first, 3)])
    joined = [net.identity(first), net.conv(second, 3), net.identity(first), net.identity(second)]
    net.add("joined", joined)
    net.add("only", [net.identity("joined")])
    net.add("readout", [net.dense("only", 4)], Readout(1.0))
    schedule = Schedule(5, 6) if kind == "cif" else Schedule(7)
    program = net.program(InputQuantizer((3, 5, 4), 1.0, bits=4), schedule)
    direct, others = part_direct(program, program.population("joined"))
    assert direct.source == "first"
    weights = [s.weight.ravel() << s.weight_exponent for s in joined if s.source == "first"]
    assert np.array_equal(direct.gain, weights[0] + weights[1])
    assert others == [joined[1], joined[3]]
    assert part_direct(program, program.population("only"))[0] is None
    assert_same(program, random_inputs(program, 3))
    assert_same(program, random_inputs(program, 3), block=2)


@pytest.mark.parametrize("bits", [4, 12])
def test_an_input_that_skips_the_first_layer(bits):
    """Of bytes it is weighted directly; wider, it is summed like any other; asleep it is gone."""
    net = Branches(9, "cif", (3, 5, 4), -9, 9)
    net.add("joined", [net.conv("input", 3), net.identity("input")])
    net.add("readout", [net.dense("joined", 4)], Readout(1.0))
    quantizer = InputQuantizer((3, 5, 4), 1.0, bits=bits, signed=True)
    program = net.program(quantizer, Schedule(4, 5))
    direct, _ = part_direct(program, program.population("joined"))
    assert (direct is not None) == (bits == 4)
    assert_same(program, random_inputs(program, 3))


@pytest.mark.parametrize("reach", [(0, 1), (-1, 1), (-40, 40)])
def test_a_sum_pool_needs_no_convolution(reach):
    """Of sums that fit a signed byte it is the windows added up; others go the common way."""
    synapse = ConvSynapse("input", np.ones((3, 1, 2, 2), int), (2, 2), groups=3)
    pooled = as_pooled(synapse, (3, 6, 4), IntRange(*reach))
    assert pooled is None or pooled.is_all is (reach[1] == 1)
    spikes = np.random.default_rng(0).integers(reach[0], reach[1] + 1, (2, 2, 6, 4, 3))
    found = sum_of(synapse, (3, 6, 4), reach, spikes)
    windows = spikes.reshape(2, 2, 3, 2, 2, 2, 3).sum((3, 5))
    assert np.array_equal(found, windows)


def test_a_weighted_pool_is_convolved():
    synapse = ConvSynapse("input", np.full((3, 1, 2, 2), 2), (2, 2), groups=3)
    assert not as_pooled(synapse, (3, 6, 4), IntRange(0, 1)).is_all
    found = sum_of(synapse, (3, 6, 4), (0, 1), np.ones((2, 2, 6, 4, 3)))
    assert (found == 8).all()
