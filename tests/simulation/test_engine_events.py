"""Sums event by event, against a plain loop over the spikes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.oracles.numpy_loop import convolve
from toolchain.engine import events
from toolchain.engine.dispatch import count_spikes
from toolchain.engine.events import EventSum
from toolchain.engine.simd import WIDTHS, paired
from toolchain.int_range import IntRange

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
ONE = ((1, 1), (1, 1), (1, 1))


def put(weight, geometry, spikes, reach, which, before=7):
    """Sums of some planes of spikes (m, H, W, C); the others keep what they hold."""
    event_sum = EventSum(weight.transpose(0, 2, 3, 1), geometry, spikes.shape[1:], IntRange(*reach))
    reach_of = [d * (k - 1) + 1 for d, k in zip(geometry[2], weight.shape[2:], strict=True)]
    sides = [
        (n + 2 * p - r) // s + 1
        for n, p, r, s in zip(spikes.shape[1:3], geometry[1], reach_of, geometry[0], strict=True)
    ]
    planes = (spikes - min(reach[0], 0)).astype(np.uint8)
    # Planes of which every second is not to be summed.
    apart = np.full((2 * len(planes), *planes.shape[1:]), 99, np.uint8)
    apart[1::2] = planes
    numbers = np.arange(1, 2 * len(planes), 2)
    counts = count_spikes(apart, -min(reach[0], 0), numbers)
    total = np.full((len(planes), *sides, len(weight)), before, np.int32)
    event_sum.put(apart, numbers, np.array(which), counts, total)
    return total


def assert_sums(total, weight, geometry, spikes, which, before=7):
    for plane in range(len(spikes)):
        if plane not in which:
            assert (total[plane] == before).all()
            continue
        plain = spikes[plane].transpose(2, 0, 1)
        expected = convolve(plain, weight, *geometry, 1)  # type: ignore[call-arg]
        assert np.array_equal(total[plane].transpose(2, 0, 1), expected)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=PAIR,
    stride=PAIR,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    c_in=st.sampled_from([1, 6, 8, 24]),
    c_out=st.sampled_from([1, 16, 32, 64, 70, 128, 200, 300]),
    reach=st.sampled_from([(0, 1), (-1, 1), (-1, 0), (0, 4), (-4, 20)]),
    share=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    cached=st.sampled_from([1, 4000, 1 << 19]),
    threads=st.sampled_from([1, 2]),
)
def test_events_add_up_to_the_convolution(
    seed, kernel, stride, padding, dilation, c_in, c_out, reach, share, cached, threads
):
    plane = (6, 8)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= s for n, p, s in zip(plane, padding, spans, strict=True)))
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (c_out, c_in, *kernel))
    spikes = rng.integers(reach[0], reach[1] + 1, (4, *plane, c_in))
    spikes[rng.random(spikes.shape) >= share] = 0
    geometry = (stride, padding, dilation)
    which = rng.permutation(4)[: rng.integers(1, 5)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "CACHED", cached)
        patch.setattr(events, "allowed_threads", lambda: threads)
        total = put(weight, geometry, spikes, reach, which)
    assert_sums(total, weight, geometry, spikes, which)


@pytest.mark.parametrize("low", [-128, 127])
@pytest.mark.parametrize("reach", [(0, 1), (-1, 1), (-3, 3)])
@pytest.mark.parametrize("c_in", [5, 64, 520])
def test_extremes_do_not_overflow_the_words(low, reach, c_in):
    """All weights and spikes at an end of their ranges: sums of 255 events fill 16 bits."""
    weight = np.full((70, c_in, 3, 3), low)
    weight[1::2] = -1 - low
    spikes = np.full((2, 4, 4, c_in), reach[1])
    spikes[1] = reach[0]
    total = put(weight, ONE, spikes, reach, [0, 1])
    assert_sums(total, weight, ONE, spikes, [0, 1])
    assert np.abs(total).max() == 9 * c_in * 128 * max(-reach[0], reach[1])


def test_a_word_holds_two_weights():
    weight = np.arange(-64, 64)
    weight[0], weight[33], weight[64 + 31] = -128, 127, -128
    words = paired(weight)
    assert words.dtype == np.int16
    for k in range(32):
        for block in (0, 1):
            low, high = weight[64 * block + k], weight[64 * block + 32 + k]
            word = int(words[32 * block + k])
            assert word >> 8 == high
            assert (word & 255) - 128 == low


@pytest.mark.parametrize(
    ("outputs", "widths"),
    [(1, [64]), (64, [64]), (65, [64, 64]), (200, [128, 64, 64]), (512, [256, 256])],
)
def test_outputs_go_in_the_widest_vectors_that_they_fill(outputs, widths):
    found = events._widths(outputs)
    assert found.tolist() == widths
    assert set(found.tolist()) <= set(WIDTHS)


@pytest.mark.parametrize(
    ("outputs", "across", "columns"),
    [(32, 8, 4), (64, 8, 2), (32, 6, 2), (32, 7, 1), (128, 8, 1), (65, 8, 1), (1, 4, 4)],
)
def test_few_channels_go_with_their_neighbours(outputs, across, columns):
    assert events._columns(outputs, across) == columns


def test_more_time_allows_more_spikes():
    """The estimate grows with the time; few spikes are worth it, all are not."""
    weight = np.ones((256, 3, 3, 256), np.int8)
    event_sum = EventSum(weight, ONE, (8, 8, 256), IntRange(0, 1))
    sites = 8 * 8 * 256
    products = 8 * 8 * weight.size
    assert event_sum.limit(1.0) < 0
    assert 0 < event_sum.limit(0.001 * products) < event_sum.limit(0.002 * products) < sites
    assert event_sum.limit(0.01 * products) > sites / 2
