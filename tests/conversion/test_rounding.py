"""Error-compensating rounding against plain linear algebra and brute force."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from toolchain.conversion.quantization import input_moments, rounding
from toolchain.conversion.quantization.input_moments import InputMoments, unfolded
from toolchain.conversion.quantization.rounding import DAMPING, round_gptq, round_nearest
from toolchain.conversion.quantization.threshold_search import ErrorTerm
from toolchain.errors import ConversionError, ProgramError
from toolchain.int_range import IntRange
from toolchain.program.float_program import Conv2d, Linear

FEW, MANY = 1, 1 << 14
"""Expected rows with which the rows themselves are kept, and with which G is."""


def term(bits, weight, exponent=0, moment=None):
    return ErrorTerm(weight, IntRange.signed(bits), exponent, moment)


def dense(weight):
    return Linear("x", ("input",), weight, np.zeros(len(weight)))


def conv(weight, stride=1, padding=0, dilation=1, groups=1):
    pairs = [(n, n) for n in (stride, padding, dilation)]
    return Conv2d("x", ("input",), weight, np.zeros(len(weight)), *pairs, groups)  # type: ignore[call-arg]


def activity(rng, rows, inputs):
    """Correlated spike rates in quarters, with silent stretches."""
    mixed = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, inputs)) + rng.normal(
        0, 0.3, (rows, inputs)
    )
    return np.clip(np.floor(mixed * 2), 0, 4) / 4


def solved(target, gram, low, high, damping):
    """GPTQ's rule by its definition: the columns not yet rounded are set anew to what makes up
    best for those that are, by solving the linear system each time. The bias is last."""
    order = [*np.argsort(-np.diag(gram)[:-1], kind="stable"), len(gram) - 1]
    h = gram + damping * np.diag(np.diag(gram))
    h = h[np.ix_(order, order)]
    w, q = target[order].copy(), np.zeros(len(target))
    for i in range(len(w)):
        rest = slice(i, None)
        now = w[rest] - np.linalg.solve(h[rest, rest], h[rest, :i] @ (q[:i] - w[:i]))
        q[i] = np.clip(np.rint(now[0]), low[order[i]], high[order[i]])
    result = np.empty(len(w))
    result[order] = q
    return result


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    bits=st.sampled_from([2, 3, 4, 8]),
    split=st.booleans(),
    expected_rows=st.sampled_from([FEW, MANY]),
)
def test_equals_the_rule_solved_directly(seed, bits, split, expected_rows, limits):
    rng = np.random.default_rng(seed)
    x = activity(rng, 60, 9) + rng.uniform(0, 0.01, (60, 9))
    weight, bias = rng.normal(0, 0.4, (4, 9)), rng.normal(0, 0.3, 4)
    theta = (2 ** (bits - 1) - 1) / np.abs(weight).max(1)
    parts = np.split(weight, [5], axis=1) if split else [weight]
    inputs = np.split(x, [5], axis=1) if split else [x]
    terms = [term(bits, p) for p in parts]
    moments = InputMoments([dense(p) for p in parts], expected_rows)
    moments.add([torch.from_numpy(i[:25]) for i in inputs])
    moments.add([torch.from_numpy(i[25:]) for i in inputs])
    found = round_gptq("x", terms, bias, theta[None], moments, limits=limits)
    rows = np.concatenate([x, np.ones((60, 1))], axis=1)
    gram = rows.T @ rows / 60
    low = np.append(np.full(9, -(2.0 ** (bits - 1))), -limits.bias_max)
    high = np.append(np.full(9, 2.0 ** (bits - 1) - 1), limits.bias_max)
    integers = np.concatenate([*found.weights, found.bias[:, None]], axis=1)
    for c in range(4):
        target = np.append(weight[c], bias[c]) * theta[c]
        expected = solved(target, gram, low, high, DAMPING)
        nearest = np.clip(np.rint(target), low, high)
        errors = [
            float(((rows @ (q - target)) ** 2).mean()) / theta[c] ** 2 for q in (expected, nearest)
        ]
        chosen = expected if errors[0] < errors[1] else nearest
        assert np.array_equal(integers[c], chosen)
        assert found.error[c] == pytest.approx(min(errors))
        assert found.nearest_error[c] == pytest.approx(errors[1])
    assert not found.undetermined


@pytest.mark.parametrize("expected_rows", [FEW, MANY])
def test_by_hand(expected_rows, limits):
    """Two inputs that always fire together: what one loses the other takes, without a bias move.

    Targets 0.4 and 0.4 with moments 1 each and correlation 1: the nearest gives 0 and 0, a sum
    short of 0.8. The bias is the same input too and takes the rest: 0.4 -> 0; the second's target
    is then about 0.4 + 0.2 (the bias takes the other half), rounds to 1; the bias gets the rest.
    """
    terms = [term(8, np.array([[0.4, 0.4]]))]
    moments = InputMoments([dense(np.ones((1, 2)))], expected_rows)
    moments.add([torch.ones(10, 2)])
    found = round_gptq(
        "x",
        terms,
        np.zeros(1),
        np.ones((1, 1)),
        moments,
        limits=limits,
        damping=1e-6,
    )
    total = int(found.weights[0].sum() + found.bias[0])
    assert total == 1
    assert found.error[0] == pytest.approx(0.04)
    assert found.nearest_error[0] == pytest.approx(0.64)
    assert found.undetermined


@pytest.mark.parametrize(("groups", "shortcut"), [(1, False), (2, False), (4, False), (2, True)])
@pytest.mark.parametrize(("bits", "expected_rows"), [(2, FEW), (2, MANY), (4, FEW), (4, MANY)])
def test_convolutions_with_groups_and_a_shortcut(groups, shortcut, bits, expected_rows, limits):
    """The error told is that of the real layer's output, and never above the nearest's."""
    rng = np.random.default_rng(groups)
    x = torch.from_numpy(activity(rng, 6 * 49, 4).reshape(6, 7, 7, 4).transpose(0, 3, 1, 2).copy())
    weight = rng.normal(0, 0.3, (8, 4 // groups, 3, 3))
    operations = [conv(weight, 2, 1, 1, groups)]
    inputs, exponents = [x], [4]
    if shortcut:
        operations.append(conv(rng.normal(0, 1, (8, 4, 1, 1)), 2))
        inputs.append(x.flip(0))
        exponents.append(6)
    bias = rng.normal(0, 0.2, 8)
    terms = [
        term(bits, o.weight.reshape(8, -1), e) for o, e in zip(operations, exponents, strict=True)
    ]
    peak = np.max([np.abs(t.weight).max(1) / 2**t.weight_exponent for t in terms], axis=0)
    theta = (2 ** (bits - 1) - 1) / peak
    moments = InputMoments(operations, expected_rows)
    moments.add(inputs)
    found = round_gptq("x", terms, bias, theta[None], moments, limits=limits)
    nearest = round_nearest(terms, bias, theta, limits=limits)

    def current(weights, bias):
        total = torch.from_numpy(bias).double()[None, :, None, None]
        for o, flat, i in zip(operations, weights, inputs, strict=True):
            w = torch.from_numpy(np.array(flat, np.float64)).reshape(o.weight.shape)
            total = total + F.conv2d(i, w, None, o.stride, o.padding, o.dilation, o.groups)
        return total

    exact = current([t.weight for t in terms], bias)
    for rounded, told in ((found, found.error), (nearest, found.nearest_error)):
        scaled = [
            w * 2**e / theta[:, None] for w, e in zip(rounded.weights, exponents, strict=True)
        ]
        error = ((current(scaled, rounded.bias / theta) - exact) ** 2).mean((0, 2, 3)).numpy()
        assert told == pytest.approx(error)
    assert (found.error <= found.nearest_error).all()
    assert found.error.sum() < found.nearest_error.sum()
    for w in found.weights:
        assert w.min() >= -(2 ** (bits - 1))
        assert w.max() <= 2 ** (bits - 1) - 1


def test_between_brute_force_and_the_nearest(limits):
    """Three inputs at three bits: every integer row is tried."""
    rng = np.random.default_rng(3)
    found_total = best_total = nearest_total = 0.0
    for _ in range(10):
        x = activity(rng, 40, 3)
        rows = np.concatenate([x, np.ones((40, 1))], axis=1)
        weight, bias = rng.normal(0, 0.5, (1, 3)), rng.normal(0, 0.1, 1)
        theta = 3 / np.abs(weight).max(1)
        moments = InputMoments([dense(weight)], MANY)
        moments.add([torch.from_numpy(x)])
        found = round_gptq("x", [term(3, weight)], bias, theta[None], moments, limits=limits)
        target = np.append(weight, bias) * theta
        best = min(
            float(((rows @ (np.array(q) - target)) ** 2).mean())
            for q in product(range(-4, 4), range(-4, 4), range(-4, 4), range(-6, 7))
        )
        found_total += found.error[0]
        best_total += best / theta[0] ** 2
        nearest_total += found.nearest_error[0]
    assert best_total <= found_total <= nearest_total
    assert found_total < 0.97 * nearest_total


@pytest.mark.parametrize("common", [False, True])
def test_fewer_rows_than_inputs(common, limits, monkeypatch):
    """20 rows of 300 inputs, more than a block, some silent: as solved directly, in both forms.

    Channels are rounded a few at once in one of them.
    """
    rng = np.random.default_rng(5)
    x = activity(rng, 20, 300)
    x[:, rng.choice(300, 40, replace=False)] = 0.0
    x[:, 7] = x[:, 8]
    weight, bias = rng.normal(0, 0.3, (7, 300)), rng.normal(0, 0.2, 7)
    theta = 7 / np.abs(weight).max(1)
    candidates = np.stack([theta, 0.8 * theta]) if not common else np.full((2, 7), theta.min())
    rows = np.concatenate([x, np.ones((20, 1))], axis=1)
    gram = rows.T @ rows / 20
    low, high = (np.append(np.full(300, v), s * limits.bias_max) for v, s in ((-8, -1), (7, 1)))
    results = []
    for expected_rows in (FEW, MANY):
        moments = InputMoments([dense(weight)], expected_rows)
        moments.add([torch.from_numpy(x)])
        how = {"limits": limits, "common": common}
        results.append(round_gptq("x", [term(4, weight)], bias, candidates, moments, **how))
        monkeypatch.setattr(rounding, "AT_ONCE", 2 * 301 * 2)
    for found in results:
        assert found.undetermined
        for c in range(7):
            target = np.append(weight[c], bias[c]) * found.threshold[c]
            h = gram + np.diag(np.where(np.diag(gram) == 0, 1e-9, 0.0))
            expected = solved(target, h, low, high, DAMPING)
            assert np.array_equal(np.append(found.weights[0][c], found.bias[c]), expected)
    assert np.array_equal(results[0].weights[0], results[1].weights[0])
    assert results[0].error == pytest.approx(results[1].error)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("expected_rows", [FEW, MANY])
def test_threads_find_the_same_integers(expected_rows, groups, limits, monkeypatch):
    """Threads share the channels, a few at once, or the groups."""
    rng = np.random.default_rng(6)
    operation = conv(rng.normal(0, 0.3, (16, 8 // groups, 3, 3)), groups=groups)
    x = activity(rng, 3 * 25, 8).reshape(3, 5, 5, 8).transpose(0, 3, 1, 2)
    monkeypatch.setattr(rounding, "AT_ONCE", 3 * operation.weight[0].size)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        moments = InputMoments([operation], expected_rows)
        moments.add([torch.from_numpy(x.copy())])
        terms = [term(4, operation.weight.reshape(16, -1))]
        candidates = np.full((1, 16), 9.0)
        try:
            found.append(round_gptq("x", terms, np.zeros(16), candidates, moments, limits=limits))
        finally:
            torch.set_num_threads(before)
    assert np.array_equal(found[0].weights[0], found[1].weights[0])
    assert np.array_equal(found[0].bias, found[1].bias)
    assert np.array_equal(found[0].kept_nearest, found[1].kept_nearest)


def test_rows_determine_no_more_inputs_than_are_active(limits):
    """Four of 40 inputs are active in 20 rows, and independent; two of five are the same."""
    rng = np.random.default_rng(2)
    x = np.zeros((20, 40))
    x[:, :4] = rng.integers(0, 5, (20, 4)) / 4
    weight = rng.normal(0, 0.3, (3, 40))
    for copied in (False, True):
        x[:, 4] = x[:, 0] if copied else 0.0
        for expected_rows in (FEW, MANY):
            moments = InputMoments([dense(weight)], expected_rows)
            moments.add([torch.from_numpy(x)])
            theta = np.full((1, 3), 9.0)
            found = round_gptq("x", [term(4, weight)], np.zeros(3), theta, moments, limits=limits)
            assert found.undetermined == copied


def test_weights_already_on_the_grid_stay(limits):
    rng = np.random.default_rng(0)
    integers, bias = rng.integers(-7, 8, (3, 6)), rng.integers(-90, 90, 3)
    moments = InputMoments([dense(integers)], MANY)
    moments.add([torch.from_numpy(activity(rng, 30, 6))])
    theta = np.array([31.0, 17.0, 64.0])
    terms = [term(4, integers / theta[:, None])]
    found = round_gptq("x", terms, bias / theta, theta[None], moments, limits=limits)
    assert np.array_equal(found.weights[0], integers)
    assert np.array_equal(found.bias, bias)
    assert found.error == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("common", [False, True])
def test_of_several_thresholds_the_best_is_kept(common, limits):
    rng = np.random.default_rng(1)
    x, weight, bias = activity(rng, 50, 8), rng.normal(0, 0.3, (6, 8)), rng.normal(0, 0.2, 6)
    moments = InputMoments([dense(weight)], MANY)
    moments.add([torch.from_numpy(x)])
    candidates = np.linspace(5, 12, 8)[:, None] * np.ones(6)
    how = {"limits": limits}
    found = round_gptq("x", [term(4, weight)], bias, candidates, moments, **how, common=common)
    alone = [round_gptq("x", [term(4, weight)], bias, c[None], moments, **how) for c in candidates]
    errors = np.stack([a.error for a in alone])
    if common:
        assert len(set(found.threshold)) == 1
        assert found.error.sum() <= errors.sum(axis=1).min() * (1 + 1e-9) + 1e-12 or (
            found.kept_nearest.all()
        )
    else:
        nearest = np.isclose(found.error, found.nearest_error)
        assert np.allclose(found.error[~nearest], errors.min(axis=0)[~nearest])
    integers = np.concatenate([found.weights[0], found.bias[:, None]], axis=1)
    real = integers / found.threshold[:, None] - np.concatenate([weight, bias[:, None]], axis=1)
    rows = np.concatenate([x, np.ones((50, 1))], axis=1)
    assert found.error == pytest.approx(((rows @ real.T) ** 2).mean(axis=0))


@pytest.mark.parametrize("expected_rows", [FEW, MANY])
def test_an_input_that_never_fires_is_rounded_to_the_nearest(expected_rows, limits):
    rng = np.random.default_rng(0)
    x = activity(rng, 50, 6)
    x[:, 2] = 0.0
    weight = rng.normal(0, 0.4, (5, 6))
    moments = InputMoments([dense(weight)], expected_rows)
    moments.add([torch.from_numpy(x)])
    theta = 3 / np.abs(weight).max(1)
    found = round_gptq("x", [term(3, weight)], np.zeros(5), theta[None], moments, limits=limits)
    assert np.array_equal(found.weights[0][:, 2], np.rint(theta * weight[:, 2]))


def test_values_beyond_the_range_are_clamped_and_counted(limits):
    terms, theta = [term(3, np.array([[2.6, -9.0, 1.0]]))], np.ones(1)
    plain = round_nearest(terms, np.zeros(1), theta, limits=limits)
    assert plain.weights[0].tolist() == [[3, -4, 1]]
    assert plain.clamped.tolist() == [1]
    moments = InputMoments([dense(np.ones((1, 3)))], MANY)
    moments.add([torch.from_numpy(activity(np.random.default_rng(0), 20, 3))])
    found = round_gptq("x", terms, np.zeros(1), theta[None], moments, limits=limits)
    assert found.weights[0].min() >= -4
    assert found.weights[0].max() <= 3
    assert found.clamped.sum() >= 1
    assert found.error[0] <= found.nearest_error[0]


def test_too_few_rows_are_told_and_no_rows_refused(limits):
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.3, (2, 12))
    moments = InputMoments([dense(weight)], MANY)
    how = {"limits": limits}
    with pytest.raises(ConversionError, match=r"^fc: the calibration data do not fit"):
        round_gptq("fc", [term(4, weight)], np.zeros(2), np.ones((1, 2)), moments, **how)
    moments.add([torch.from_numpy(activity(rng, 5, 12))])
    assert round_gptq(
        "fc", [term(4, weight)], np.zeros(2), np.full((1, 2), 7.0), moments, **how
    ).undetermined


def test_moments_by_a_plain_loop():
    """im2col with stride, padding, dilation and groups, against indices written out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 5))
    operation = conv(rng.normal(size=(6, 2, 3, 2)), 2, 1, 2, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = (6 + 2 - 5) // 2 + 1, (5 + 2 - 3) // 2 + 1
    expected = np.zeros((2, 13, 13))
    for group in range(2):
        for n, i, j in product(range(2), range(height), range(width)):
            row = [
                padded[n, 2 * group + c, 2 * i + 2 * a, 2 * j + 2 * b]
                for c, a, b in product(range(2), range(3), range(2))
            ]
            row = np.array([*row, 1.0])
            expected[group] += np.outer(row, row)
    moments = InputMoments([operation], MANY)
    moments.add([torch.from_numpy(x)])
    assert moments.rows == 2 * height * width
    assert np.allclose(moments.gram.numpy(), expected)
    (second,) = moments.second_moments()
    assert np.allclose(second[:3], np.diag(expected[0])[:-1] / moments.rows)
    assert np.allclose(second[3:], np.diag(expected[1])[:-1] / moments.rows)
    with pytest.raises(ProgramError, match="SimpleNamespace"):
        unfolded(SimpleNamespace(), torch.zeros(1))


def test_of_very_many_rows_some_of_each_batch_are_taken(monkeypatch):
    """Every row has an input of its own, so that G tells which ones were taken: always the same."""
    monkeypatch.setattr(input_moments, "SEEN", 100)
    monkeypatch.setattr(input_moments, "SEEN_PER_INPUT", 0)
    x = torch.eye(800).reshape(800, 2, 20, 20).transpose(0, 1)
    grams = []
    for _ in range(2):
        moments = InputMoments([conv(np.ones((1, 800, 1, 1)))], 800)
        moments.add([x[:1]])
        moments.add([x[1:]])
        assert moments.rows == 100
        grams.append(moments.gram.numpy())
    taken = np.diag(grams[0][0])[:-1]
    assert set(taken) == {0.0, 1.0}
    assert taken[:400].sum() == taken[400:].sum() == 50
    assert np.array_equal(grams[0], grams[1])
