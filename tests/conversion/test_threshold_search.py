"""The threshold search against brute force: every theta, in a plain loop."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.conversion.quantization import distinct_columns as columns
from toolchain.conversion.quantization.distinct_columns import distinct_columns
from toolchain.conversion.quantization.rounding_error import rounding_errors
from toolchain.conversion.quantization.threshold_search import (
    ErrorTerm,
    search_scale,
    search_thresholds,
)
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange


def term(bits, weight, exponent=0, moment=None):
    return ErrorTerm(weight, IntRange.signed(bits), exponent, moment)


def cost(theta, terms, bias, channel, bounds=None, correlation=0.1):
    """J of one channel as the double sum over inputs; infinite where a weight leaves `bounds`."""
    errors = []
    for each in terms:
        unit = 2**each.weight_exponent
        moment = np.ones(each.weight.shape) if each.moment is None else each.moment
        moment = np.broadcast_to(moment, each.weight.shape)
        for m, w in zip(moment[channel], each.weight[channel], strict=True):
            integer = np.rint(theta * w / unit)
            if bounds is not None and not bounds[0] <= integer <= bounds[1]:
                return np.inf
            errors.append(np.sqrt(m) * (unit * integer / theta - w))
    of_bias = np.rint(theta * bias[channel]) / theta - bias[channel]
    total = of_bias**2 + 2 * of_bias * np.sqrt(correlation) * sum(errors)
    for i, a in enumerate(errors):
        for j, b in enumerate(errors):
            total += a * b * (1.0 if i == j else correlation)
    return total


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (40, 3000)])
def test_rounding_errors_against_numpy(shared, clips, shape):
    """Ties to even included; the larger shape is shared out among threads."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-40, 41, shape) / 8
    importance, weighting = rng.uniform(0, 2, (2, 1 if shared else shape[0], shape[1]))
    thetas = rng.integers(1, 99, (50, shape[0])) / 2
    bounds = (np.full(shape[1], -100.0), np.full(shape[1], 99.0)) if clips else None
    apart, together = rounding_errors(weight, importance, weighting, thetas, bounds)
    for n, theta in enumerate(thetas):
        scaled = weight * theta[:, None]
        rounded = np.rint(scaled)
        if clips:
            rounded = np.clip(rounded, -100, 99)
        error = rounded - scaled
        assert np.allclose(apart[n], (error**2 * importance).sum(1), rtol=1e-12, atol=0)
        assert np.allclose(together[n], (error * weighting).sum(1), rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    bits=st.integers(2, 5),
    exponents=st.sampled_from([(0,), (0, 2), (3, 1)]),
    measured=st.booleans(),
    correlation=st.sampled_from([0.0, 0.1]),
)
def test_never_above_the_largest_theta_and_often_the_optimum(
    seed, bits, exponents, measured, correlation, limits
):
    rng = np.random.default_rng(seed)
    terms = [
        term(
            bits,
            rng.normal(0, 2**e / 8, (3, 4)),
            e,
            rng.uniform(0, 1, (3, 4)) if measured else None,
        )
        for e in exponents
    ]
    bias = rng.normal(0, 1, 3)
    found = search_thresholds(
        "x", terms, bias, limits=limits, correlation=correlation, candidates=300
    )
    bounds = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    largest = found.largest
    assert not found.clipped.any()
    for c in range(3):
        peak = max(np.abs(t.weight[c]).max() / 2**t.weight_exponent for t in terms)
        assert largest[c] * peak <= bounds[1] * (1 + 1e-9) < (largest[c] + 1) * peak * (1 + 1e-8)
        assert found.error[c] == pytest.approx(
            cost(found.threshold[c], terms, bias, c, bounds, correlation)
        )
        assert found.largest_error[c] == pytest.approx(
            cost(largest[c], terms, bias, c, None, correlation)
        )
        assert found.error[c] <= found.largest_error[c]
        # Every theta from half the largest until a rounded weight no longer fits.
        every = range(max(1, largest[c] // 2), 4 * largest[c] + 4)
        best = min(cost(theta, terms, bias, c, bounds, correlation) for theta in every)
        if len(every) < 300:
            assert found.error[c] == pytest.approx(best)


def test_by_hand(limits):
    # Largest: 7 / 0.9 = 7.78 -> 7: W = 6.3 -> 6, 3.5 -> 4; errors 0.3/7, 0.5/7.
    # theta 8: 7.2 -> 7, 4; errors 0.2/8 and 0, the bias 0.25 is exact. 9: 8.1 -> 8 does not fit;
    # 10 neither. Below: 6: 5.4, 3.0; 4: 3.6, 2.0. So 8 wins.
    found = search_thresholds(
        "x",
        [term(4, np.array([[0.9, 0.5]]))],
        np.array([0.25]),
        limits=limits,
        correlation=0.0,
    )
    assert found.largest.tolist() == [7]
    assert found.threshold.tolist() == [8]
    assert found.error[0] == pytest.approx((0.2 / 8) ** 2)
    # 7 * 0.25 = 1.75 -> 2
    assert found.largest_error[0] == pytest.approx((0.3**2 + 0.5**2 + 0.25**2) / 49)


def test_the_negative_side_holds_one_more(limits):
    """Two bits: -2 .. 1."""
    found = search_thresholds("x", [term(2, np.array([[-1.0, 0.5]]))], np.zeros(1), limits=limits)
    assert found.threshold.tolist() == [2]
    assert found.error[0] == 0.0


def test_moments_decide(limits):
    """With all the weight on one input, theta is the best for that input (7 / 0.9 = 7.8)."""
    weight = np.array([[0.9, 0.37]])
    thetas = np.arange(3, 9)[:, None]
    errors = np.abs(np.rint(thetas * weight) / thetas - weight)
    for kept, moment in enumerate((np.array([1.0, 1e-9]), np.array([1e-9, 1.0]))):
        found = search_thresholds("x", [term(4, weight, 0, moment)], np.zeros(1), limits=limits)
        assert errors[found.threshold[0] - 3, kept] == errors[:, kept].min()


def test_limits_and_ceilings_hold(limits):
    tight = replace(limits, threshold_max=50, bias_max=40)
    weight = np.random.default_rng(0).normal(0, 0.1, (20, 30))
    bias = np.linspace(-3, 3, 20)
    found = search_thresholds("x", [term(8, weight)], bias, limits=tight)
    assert (found.threshold <= 50).all()
    assert (np.abs(np.rint(bias * found.threshold)) <= 40).all()
    low = search_thresholds(
        "x", [term(8, weight)], bias, limits=tight, ceiling=found.threshold * 0.7
    )
    assert (low.threshold <= np.maximum(found.threshold * 0.7, 1)).all()


def test_a_spike_worth_more_than_a_weight_can_hold(limits):
    with pytest.raises(ConversionError, match=r"^deep: a single spike .*\n.*9 thresholds in ch"):
        search_thresholds(
            "deep",
            [term(4, np.array([[0.1], [9.0]]))],
            np.zeros(2),
            limits=limits,
        )


def test_a_channel_without_weights(limits):
    found = search_thresholds("x", [term(4, np.zeros((1, 3)))], np.array([0.5]), limits=limits)
    assert found.error[0] == 0.0
    assert 1 <= found.threshold[0] <= limits.threshold_max


def test_clipping_only_when_allowed(limits):
    """One outlier among many small weights: clipping it is cheaper, but it must be told."""
    rng = np.random.default_rng(1)
    weight = np.concatenate([rng.normal(0, 0.05, (2, 400)), [[0.6], [0.05]]], axis=1)
    terms, bias = [term(3, weight)], np.zeros(2)
    how = {"limits": limits, "correlation": 0.0}
    kept = search_thresholds("x", terms, bias, **how)
    free = search_thresholds("x", terms, bias, **how, allow_clipping=True)
    assert not kept.clipped.any()
    assert free.error[0] < kept.error[0]
    assert (free.error <= kept.error).all()
    rounded = np.rint(free.threshold[:, None] * weight)
    assert free.clipped.tolist() == ((rounded > 3) | (rounded < -4)).sum(axis=1).tolist()
    assert free.clipped[0] >= 1
    clipped = np.clip(rounded, -4, 3) / free.threshold[:, None] - weight
    assert free.error == pytest.approx((clipped**2).sum(axis=1))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_scale_of_a_readout(bits, limits):
    rng = np.random.default_rng(bits)
    terms = [term(bits, rng.normal(0, 1, (4, 9)), 2, rng.uniform(0, 1, 9))]
    bias = rng.normal(0, 1, 4)

    def error(scale):
        return sum(cost(1 / scale, terms, bias, c) for c in range(4))

    largest = 2 ** (bits - 1) - 1
    plain = np.abs(terms[0].weight).max() / 4 / largest
    found = search_scale("r", terms, bias, limits=limits)
    assert error(found) <= error(plain) * (1 + 1e-9)
    integers = np.rint(terms[0].weight / 4 / found)
    assert -largest - 1 <= integers.min()
    assert integers.max() <= largest
    assert search_scale("r", terms, bias, limits=limits, room=0.5) >= 2 * min(found, plain) * (
        1 - 1e-9
    )
    with pytest.raises(ConversionError, match="r: all weights of the readout are zero"):
        search_scale("r", [term(bits, np.zeros((1, 2)))], np.ones(1), limits=limits)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    repeats=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    moments=st.sampled_from(["none", "shared", "measured"]),
)
def test_equal_columns_count_as_often_as_they_come(seed, repeats, moments, limits):
    """J is that of all columns, one by one."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(-0.5, 0.5, (3, 4))[:, repeats]
    count = len(repeats)
    moment = {"none": None, "shared": np.full(count, 0.5), "measured": rng.uniform(0, 1, count)}
    terms = [term(4, weight, 1, moment[moments])]
    bias = rng.uniform(-1, 1, 3)
    found = search_thresholds("layer", terms, bias, limits=limits)
    for channel, theta in enumerate(found.threshold):
        expected = cost(theta, terms, bias, channel)
        assert found.error[channel] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_distinct_columns():
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(50, 4))[:, [2, 0, 2, 3, 0, 2]]
    first, counts = distinct_columns(weight)  # type: ignore[misc]
    assert first.tolist() == [0, 1, 3]
    assert counts.tolist() == [3, 2, 1]
    weight[49, 2] = np.nextafter(weight[49, 2], 1)
    first, counts = distinct_columns(weight)  # type: ignore[misc]
    assert first.tolist() == [0, 1, 2, 3]
    assert counts.tolist() == [2, 2, 1, 1]
    assert distinct_columns(rng.normal(size=(2, 9))) is None
    # Zeros of either sign have other bits; taken for different, they only cost time.
    assert distinct_columns(np.array([[0.0, -0.0]])) is None


def test_columns_with_the_same_sum_of_bits_are_not_taken_for_equal(monkeypatch):
    monkeypatch.setattr(columns, "_sums", lambda weight: np.zeros(weight.shape[1], np.uint64))
    assert distinct_columns(np.array([[1.0, 2.0, 1.0]])) is None
    first, counts = distinct_columns(np.array([[1.0, 1.0, 1.0]]))  # type: ignore[misc]
    assert (first.tolist(), counts.tolist()) == ([0], [3])
