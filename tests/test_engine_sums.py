"""How the engine sums up silent, sparse and dense planes, and spikes that reach one neuron."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks import BLOCKS, Branches, branched_program, fits, random_inputs, random_program
from tests.oracles.numpy_loop import convolve
from tests.test_engine import CONVS, SCHEDULES, assert_same
from toolchain.int_range import IntRange
from toolchain.neurons import Readout
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.simulator.engine import events, sums
from toolchain.simulator.engine.coded import CodedSpikes
from toolchain.simulator.engine.direct import is_direct, part_direct
from toolchain.simulator.engine.events import EventSum, sort_planes
from toolchain.simulator.engine.sums import SynapticSum

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=PAIR,
    stride=PAIR,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    channels=st.sampled_from([(1, 3), (8, 2), (16, 5)]),
    reach=st.sampled_from([(0, 1), (-1, 1), (-4, 200)]),
    wide=st.booleans(),
)
def test_events_add_up_to_the_convolution(
    seed, kernel, stride, padding, dilation, channels, reach, wide
):
    plane = (6, 7)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= s for n, p, s in zip(plane, padding, spans, strict=True)))
    rng = np.random.default_rng(seed)
    c_in, c_out = channels
    most = 3000 if wide else 127
    weight = rng.integers(-most, most + 1, (c_out, c_in, *kernel))
    synapse = ConvSynapse("input", weight, stride, padding, dilation)
    spikes = rng.integers(reach[0], reach[1] + 1, (3, *plane, c_in))
    spikes[rng.random(spikes.shape) < 0.8] = 0
    silence = -reach[0]
    shape = synapse.output_shape((c_in, *plane))
    total = np.zeros((3, *shape[1:], shape[0]), np.float32)
    EventSum(synapse).add((spikes + silence).astype(np.uint8), silence, np.array([0, 2]), total)
    for sample in (0, 2):
        plain = spikes[sample].transpose(2, 0, 1)
        expected = convolve(plain, weight, stride, padding, dilation, 1)
        assert np.array_equal(total[sample].transpose(2, 0, 1), expected.astype(np.float32))
    assert not total[1].any()


@pytest.mark.parametrize("channels", [8, 5])
@pytest.mark.parametrize("silence", [0, 1, 128])
def test_planes_are_sorted_by_their_spikes(channels, silence):
    # Of 40 planes of 10 * 8 * C sites: one dense, one sparse, one just sparse, one just dense.
    planes = np.full((40, 10, 8, channels), silence, np.uint8)
    sites = planes.reshape(40, -1)
    limit = sites.shape[1] // 40
    sites[7] = silence + 1
    sites[9, -1] = silence ^ 255
    sites[20, :limit] = silence + 2
    sites[30, : limit + 1] = silence + 2
    found = sort_planes(planes, silence, 256)
    assert found.dense[:2].tolist() == [7, 30]
    assert len(found.dense) == 8
    assert set(found.dense[2:]) <= set(range(40)) - {7, 9, 20, 30}
    assert found.sparse.tolist() == [9, 20]
    without = sort_planes(planes, silence, 0)
    assert without.dense[:4].tolist() == [7, 9, 20, 30]
    assert not len(without.sparse)


def test_sparse_planes_fill_up_those_to_convolve():
    planes = np.zeros((20, 1, 1, 80), np.uint8)
    planes[:19, ..., 0] = 1
    planes[:3] = 1
    found = sort_planes(planes, 0, 256)
    assert found.dense.tolist() == [0, 1, 2, 19, 3, 4, 5, 6]
    assert found.sparse.tolist() == list(range(7, 19))


def test_busy_planes_are_all_convolved():
    planes = np.ones((16, 4, 4, 8), np.uint8)
    planes[::4] = 0
    assert sort_planes(planes, 0, 256) is None


SHARES = {"events": 1e9, "mixed": 30.0, "picked": 0.0}


@contextmanager
def choosing(share):
    """No layer is too small to have its planes chosen, and of small ones this many are sparse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "SPARSE", share)
        patch.setattr(events, "WORTH_CHOOSING", 2)
        patch.setattr(events, "TOGETHER", 2)
        patch.setattr(sums, "FEW_WEIGHTS", 0)
        yield


@settings(max_examples=60, deadline=None)
@given(data=st.data(), share=st.sampled_from(list(SHARES.values())))
def test_chains_of_chosen_planes(data, share):
    kind = data.draw(st.sampled_from(["if", "cif"]))
    convs, seed = data.draw(CONVS), data.draw(st.integers(0, 999))
    assume(fits((2, 7, 6), convs))
    program = random_program(seed, kind, (2, 7, 6), convs, schedule=data.draw(SCHEDULES[kind]))
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    with choosing(share):
        assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), share=st.sampled_from(list(SHARES.values())))
def test_branches_of_chosen_planes(data, share):
    kind, seed = data.draw(st.sampled_from(["if", "cif"])), data.draw(st.integers(0, 999))
    blocks = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    program = branched_program(
        seed, kind, blocks, schedule=data.draw(SCHEDULES[kind]), low=-9, high=9
    )
    inputs = random_inputs(program, 3, seed)
    with choosing(share):
        assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)))


@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize("forced", [sums.Arithmetic.FLOAT32, sums.Arithmetic.FLOAT64])
def test_chosen_planes_in_every_arithmetic(share, forced, monkeypatch):
    monkeypatch.setattr(sums, "choose_arithmetic", lambda *_: forced)
    program = branched_program(3, "cif", sorted(BLOCKS), schedule=Schedule(3, 6), low=-9, high=9)
    with choosing(share):
        assert_same(program, random_inputs(program, 3))


def test_a_silent_layer_sends_one_step_of_zeros():
    synapse = ConvSynapse("input", np.ones((3, 4, 3, 3), int), padding=(1, 1))
    total = SynapticSum("conv", synapse, (4, 5, 5), IntRange(-1, 1))
    silent = CodedSpikes(np.ones((6, 2, 5, 5, 4), np.uint8), 1, (4, 5, 5))
    assert total(silent).shape == (1, 2, 5, 5, 3)
    assert not total(silent).any()


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
