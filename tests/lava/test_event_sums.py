"""Sums of the fast models over lists of spikes, against the definition of a convolution."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hw_models.fast.event_sums import MOST_ROWS, list_spikes
from hw_models.fast.events import ConvEvents, DenseEvents, ListedEvents, make_events
from tests.oracles.numpy_loop import current
from toolchain.errors import ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
EDGE = st.tuples(st.integers(0, 2), st.integers(0, 2))


def sent(synapse, source, spikes, reach):
    """Sums of spikes (B, C, H, W) or (B, F) on top of 7."""
    made = make_events(synapse, source, IntRange(*reach))
    shape = synapse.output_shape(source)
    total = np.full((len(spikes), *shape[::-1]), 7, np.int32)
    laid_out = spikes.transpose(0, *range(spikes.ndim - 1, 0, -1)).astype(np.int8)
    made.send(np.ascontiguousarray(laid_out), total)
    return made, total.transpose(0, *range(total.ndim - 1, 0, -1)) - 7


def draw(rng, shape, reach, share):
    spikes = rng.integers(reach[0], reach[1] + 1, shape)
    spikes[rng.random(shape) >= share] = 0
    return spikes


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=PAIR,
    windows=PAIR,
    stride=PAIR,
    padding=EDGE,
    dilation=PAIR,
    upsample=st.sampled_from([(1, 1), (2, 1), (2, 3)]),
    overhang=st.sampled_from([(0, 0), (1, 0), (-1, 1)]),
    c_in=st.sampled_from([1, 3, 16, 64, 70]),
    c_out=st.sampled_from([2, 16, 64, 70, 128]),
    reach=st.sampled_from([(0, 1), (-1, 1), (-1, 0), (0, 8), (-3, 2), (0, 9)]),
    share=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    exponent=st.sampled_from([0, 3]),
)
def test_listed_spikes_add_up_to_the_convolution(
    seed, kernel, windows, stride, padding, dilation, upsample, overhang, c_in, c_out, reach, share,
    exponent,
):  # fmt: skip
    rng, source = np.random.default_rng(seed), (c_in, 5, 7)
    if windows != (1, 1):
        dilation = (1, 1)
    weight = rng.integers(-128, 128, (c_out, c_in, *kernel))
    weight = weight.repeat(windows[0], axis=2).repeat(windows[1], axis=3)
    stride, padding = (
        tuple(n * size for n, size in zip(pair, windows, strict=True)) for pair in (stride, padding)
    )
    assume(all(p + o >= 0 for p, o in zip(padding, overhang, strict=True)))
    synapse = ConvSynapse(
        "input",
        weight,
        stride,
        padding,
        dilation,
        weight_exponent=exponent,
        upsample=upsample,
        overhang=overhang,
    )
    assume(min(synapse.placed(source)) >= 1)
    spikes = draw(rng, (2, *source), reach, share)
    _, total = sent(synapse, source, spikes, reach)
    for found, sample in zip(total, spikes, strict=True):
        assert np.array_equal(found, current(synapse, sample))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    source=st.sampled_from([(9,), (3, 4, 2), (700,)]),
    outputs=st.sampled_from([1, 64, 65, 200]),
    reach=st.sampled_from([(0, 1), (-1, 1), (-8, 8), (0, 127)]),
    share=st.sampled_from([0.03, 1.0]),
)
def test_listed_spikes_add_up_to_the_product(seed, source, outputs, reach, share):
    rng = np.random.default_rng(seed)
    synapse = DenseSynapse("input", rng.integers(-128, 128, (outputs, int(np.prod(source)))), 2)
    spikes = draw(rng, (3, *source), reach, share)
    _, total = sent(synapse, source, spikes, reach)
    for found, sample in zip(total, spikes, strict=True):
        assert np.array_equal(found, current(synapse, sample))


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("spike", [1, -1])
@pytest.mark.parametrize("count", [MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS + 1])
def test_the_largest_weights_of_many_spikes(weight, spike, count):
    synapse = DenseSynapse("input", np.full((64, count), weight))
    made, total = sent(synapse, (count,), np.full((1, count), spike), (-1, 1))
    assert isinstance(made, ListedEvents)
    assert (total == weight * spike * count).all()


def test_a_list_by_hand():
    # Two lines of three sites with two channels.
    spikes = np.array([[[0, 1], [0, 0], [2, 1]], [[-1, 0], [0, 3], [0, 0]]], np.int8)
    events, starts = np.zeros(12, np.uint32), np.zeros((2, 4), np.uint32)
    list_spikes(spikes.ravel(), 2, 3, 1, events, starts)
    assert events[:7].tolist() == [1, 4, 5, 4, 3, 3, 3]
    assert starts.tolist() == [[0, 1, 1, 4], [4, 4, 7, 7]]
    list_spikes(spikes.ravel(), 2, 1, -1, events, starts)
    assert events[0] == 0
    assert starts.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize(("reach", "spike"), [((0, 1), 2), ((0, 1), -1), ((-1, 1), -128)])
@pytest.mark.parametrize("place", [0, 68])
def test_a_spike_outside_its_range_is_an_error(reach, spike, place):
    synapse = DenseSynapse("input", np.ones((2, 69), int))
    spikes = np.zeros((1, 69), int)
    spikes[0, place] = spike
    with pytest.raises(ValueRangeError, match="outside its range"):
        sent(synapse, (69,), spikes, reach)


@pytest.mark.parametrize(
    ("synapse", "spikes", "kind"),
    [
        (ConvSynapse("input", np.full((2, 3, 1, 1), 127)), (0, 8), ListedEvents),
        (ConvSynapse("input", np.full((2, 3, 1, 1), 128)), (0, 1), ConvEvents),
        (ConvSynapse("input", np.full((2, 3, 1, 1), 1)), (0, 9), ConvEvents),
        (ConvSynapse("input", np.full((2, 3, 2, 2), 1), (2, 2)), (-2, 0), ListedEvents),
        (ConvSynapse("input", np.full((2, 3, 2, 2), 1), (2, 2)), (-3, 0), ConvEvents),
        (ConvSynapse("input", np.full((2, 3, 2, 2), 1), (1, 1)), (-3, 0), ListedEvents),
        (DenseSynapse("input", np.full((2, 48), -129)), (0, 1), DenseEvents),
    ],
)
def test_which_synapses_list_their_spikes(synapse, spikes, kind):
    """Those of 8-bit weights, for spikes whose sums over windows with equal weights are small."""
    assert type(make_events(synapse, (3, 4, 4), IntRange(*spikes))) is kind
