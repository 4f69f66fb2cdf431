"""Thresholds and integers of populations with several synapses, by hand and by brute force."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw_models.profile import load_profile
from tests.branched_modules import Block, ResNet, act
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.integerise import integerise
from toolchain.conversion.quantization.population_rows import Branch, FloatRows
from toolchain.conversion.quantization.thresholds import SPLIT_TOL, choose_integers, choose_scales
from toolchain.errors import ConversionError
from toolchain.program.bounds import overload, prove
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule

ONE = np.ones(1)


def rows_of(*branches, bias=None, lam=1.0, room=ONE):
    channels = len(branches[0].rows)
    bias = np.zeros(channels) if bias is None else np.array(bias)
    thresholds = None if lam is None else np.full(channels, lam)
    return FloatRows("layer", branches, bias, thresholds, room)


def identity(*weights, name="skip"):
    return Branch(name, np.array(weights, float)[:, None], identity=True)


def layer(*rows, name="conv", spike=1):
    return Branch(name, np.array(rows, float), spike)


def parts(branch):
    return [(exponent, weight.tolist()) for exponent, weight in branch.parts]


def test_an_identity_takes_an_exponent_so_that_the_convolution_keeps_its_bits(limits):
    # Exponent 3: theta = min(127 * 8, 127 / (100 / 1016)) = 1016, and both branches are exact;
    # without it theta is 127 and the convolution [12.5, -7.1].
    rows = rows_of(identity(1.0), layer([100 / 1016, -57 / 1016]), bias=[0.5])
    chosen = choose_integers(rows, 8, limits)
    assert chosen.theta.tolist() == [1016]
    assert parts(chosen.branches[0]) == [(3, [[127]])]
    assert parts(chosen.branches[1]) == [(0, [[100, -57]])]
    assert chosen.bias.tolist() == [508]


def test_an_identity_that_is_too_coarse_is_held_in_two_synapses(limits):
    # The convolution holds theta at 201: the identity needs exponent 1, 201 / 2 = 100.5 -> 100,
    # off by 1 / 201 > 1 / 256: 201 = 2 * 100 + 1.
    rows = rows_of(identity(1.0), layer([127 / 201, 3 / 201]))
    chosen = choose_integers(rows, 8, limits)
    assert chosen.theta.tolist() == [201]
    assert parts(chosen.branches[0]) == [(1, [[100]]), (0, [[1]])]
    assert chosen.branches[0].total.tolist() == [[201]]
    # Off by 1 / 777 < 1 / 256 is left alone: 777 / 8 = 97.1 -> 97.
    rows = rows_of(identity(1.0), layer(np.arange(127, 0, -6) / 777))
    chosen = choose_integers(rows, 8, limits)
    assert chosen.theta.tolist() == [777]
    assert parts(chosen.branches[0]) == [(3, [[97]])]


def test_a_mean_is_split_as_an_identity_is(limits):
    # The convolution holds theta at 402, where it is exact. Weights of half a threshold are 201 =
    # 2 * 100 + 1 there, and 100 alone is off by 1 / 201. Of 1.25 they are 502.5, 126 * 4 with
    # exponent 2 is off by 1.5 / 502.5 < 1 / 256.
    conv = layer(np.arange(127, 0, -6) / 402)
    near = choose_integers(rows_of(layer([1.25] * 2, name="mean"), conv), 8, limits)
    coarse = choose_integers(rows_of(layer([0.5] * 4, name="mean"), conv), 8, limits)
    assert near.theta.tolist() == coarse.theta.tolist() == [402]
    assert parts(near.branches[0]) == [(2, [[126] * 2])]
    assert parts(coarse.branches[0]) == [(1, [[100] * 4]), (0, [[1] * 4])]


def test_two_synapses_reach_the_weight_bits_there_are(limits):
    """With 4-bit weights the low part cannot hold all of the rest; it takes an exponent too."""
    rows = rows_of(identity(1.0, 1.0), layer([7 / 100], [7 / 97]))
    chosen = choose_integers(rows, 4, limits)
    for branch in chosen.branches:
        assert all(np.abs(weight).max() <= 7 for _, weight in branch.parts)
    error = np.abs(chosen.branches[0].total[:, 0] - chosen.theta) / chosen.theta
    assert (error <= 1 / 32).all()


def test_one_branch_needs_no_exponent(limits):
    chosen = choose_integers(rows_of(layer([0.25, -0.125], [0.15, 0.01]), lam=2.0), 8, limits)
    assert chosen.theta.tolist() == [1016, 1693]
    assert [e for e, _ in chosen.branches[0].parts] == [0]


def test_the_readout_has_one_scale_for_all_branches(limits):
    # Scale 1 / 8: the first branch 127 * 8 / 8 with exponent 3, the second 100 and 127.
    first, second = layer([127.0], [-64.0]), layer([12.5], [127 / 8], name="other")
    chosen = choose_integers(rows_of(first, second, bias=[1.0, -2.0], lam=None), 8, limits)
    assert chosen.scale == 1 / 8
    assert parts(chosen.branches[0]) == [(3, [[127], [-64]])]
    assert parts(chosen.branches[1]) == [(0, [[100], [127]])]
    assert chosen.bias.tolist() == [8, -16]


def squared_error(rows, theta, exponents):
    """Error by its definition for given thresholds and exponents, None if a weight overflows."""
    total = 0.0
    for branch, exponent in zip(rows.branches, exponents, strict=True):
        exact = branch.rows * (theta / rows.lam)[:, None] / 2**exponent
        if np.abs(np.rint(exact)).max() > 127:
            return None
        error = (np.rint(exact) - exact) * 2**exponent / theta[:, None]
        total += branch.largest_spike**2 * (error**2).sum()
    return total


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), ratio=st.floats(0.2, 30), spike=st.sampled_from([1, 4, 255]))
def test_no_pair_of_exponents_is_better(seed, ratio, spike, limits):
    """Two dense branches: brute force over pairs of which one is 0, theta the largest allowed."""
    rng = np.random.default_rng(seed)
    rows = rows_of(
        Branch("a", rng.normal(size=(3, 8)) * 0.1),
        Branch("b", rng.normal(size=(3, 5)) * 0.1 * ratio / spike, spike),
    )
    chosen = choose_integers(rows, 8, limits)
    exponents = [branch.parts[0][0] for branch in chosen.branches]
    reached = squared_error(rows, chosen.theta, exponents)
    best = np.inf
    for pair in (p for p in itertools.product(range(8), repeat=2) if min(p) == 0):
        limit = [
            127 * 2**e / np.abs(b.rows).max(axis=1)
            for b, e in zip(rows.branches, pair, strict=True)
        ]
        error = squared_error(rows, np.floor(np.min(limit, axis=0) + 1e-9), pair)
        best = min(best, error)
    assert reached <= best * (1 + 1e-9)


def test_identities_stay_exact_to_their_word(limits):
    """Channels of very different thresholds: every identity weight is within 1 / 256."""
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(-3, 3, 40))
    conv = layer(*(rng.normal(size=(40, 9)) * 0.05 * scales[:, None]))
    chosen = choose_integers(rows_of(identity(*np.ones(40)), conv), 8, limits)
    skip = chosen.branches[0]
    assert len(skip.parts) == 2
    assert (np.abs(skip.total[:, 0] / chosen.theta - 1) <= SPLIT_TOL / 32).all()
    assert chosen.theta.max() > 8 * chosen.theta.min()


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (
            (identity(1.0), layer([1e-4] * 64)),
            r"(?s)^layer: the branches.*a spike of skip is worth up to 1 thresholds, a spike of "
            r"conv is worth up to 0.0001 thresholds; conv is rounded by 23 % of that, to less than "
            r"three bits.*BatchNorm in front of the addition",
        ),
        (
            (identity(0.005), layer([200.0])),
            r"(?s)skip is worth up to 0.005 thresholds.*skip rounds to zero in some channel",
        ),
    ],
)
def test_scales_that_cannot_meet_are_refused(branches, message, limits):
    with pytest.raises(ConversionError, match=message):
        choose_integers(rows_of(*branches), 8, limits)


def test_an_identity_may_vanish_only_where_it_adds_nothing(limits):
    """The first channel of the identity is worth less than 1/256 thresholds a spike."""
    chosen = choose_integers(rows_of(identity(0.003, 1.0), layer([200.0], [1.0])), 8, limits)
    skip = chosen.branches[0].total[:, 0]
    assert skip[0] == 0
    assert skip[1] == chosen.theta[1]


def test_exponents_that_keep_every_branch_come_before_a_smaller_error(limits):
    """Without an exponent on the convolution, theta is 3 and the first identity 0.0053 * 3."""
    rows = rows_of(identity(0.0053, 1.0), layer([42.0, 42.0], [0.5, 0.5]))
    chosen = choose_integers(rows, 8, limits)
    skip = chosen.branches[0].total[:, 0]
    assert skip.tolist() == [np.rint(0.0053 * chosen.theta[0]), chosen.theta[1]] == [1, 127]
    kept = squared_error(rows, chosen.theta, (0, 6))
    assert squared_error(rows, np.array([3, 254]), (1, 0)) < kept


def test_a_spike_of_any_branch_must_fit(limits):
    rows = rows_of(layer([20000.0], name="a"), layer([1.0], name="b"))
    with pytest.raises(ConversionError, match=r"(?s)^layer: a single spike is worth more.*2e\+04"):
        choose_integers(rows, 8, limits)


def test_a_branch_too_weak_to_matter_is_told_not_refused(limits):
    """A convolution that training let die beside its residual: one weight of 1e-5 thresholds."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), act(), Block(2, 2), nn.Flatten(), nn.Linear(32, 2))
    block = model[2]
    with torch.no_grad():
        block.bn2.weight.mul_(1e-6)
    quantizer = InputQuantizer((2, 4, 4), 1 / 16, 4)
    options = ConversionOptions("if", Schedule(4))
    conversion = convert(model.eval(), quantizer, options, limits, name="dead")
    (note,) = [n for n in conversion.notes if "branch" in n]
    assert note.startswith("2.add: the branch from 2.conv1 adds less than 1/256 of a threshold")
    (rounding,) = [r for r in conversion.rounding if r.name == "2.add"]
    assert [(b.source, b.negligible) for b in rounding.branches] == [
        ("2.conv1", True),
        ("0", False),
    ]


# ---- whole networks


def small_resnet():
    torch.manual_seed(0)
    return ResNet().eval()


def test_branches_are_reported(limits):
    quantizer = InputQuantizer((2, 8, 8), 1 / 255)
    options = ConversionOptions("cif", Schedule(4, 8))
    conversion = convert(small_resnet(), quantizer, options, limits, name="r")
    rounding = {r.name: r for r in conversion.rounding}
    add = rounding["layer1.0.add"]
    assert [b.source for b in add.branches] == ["layer1.0.conv1", "conv1"]
    synapses = conversion.program.population("layer1.0.add").synapses
    assert [s.weight_exponent for s in synapses] == [
        e for branch in add.branches for e in branch.exponents
    ]
    assert all(len(s.weight) == 3 and s.groups in (1, 3) for s in synapses)
    assert add.weight_error < 0.01


def test_ranges_are_made_provable_with_several_branches(limits):
    """A narrower register: thresholds are lowered until every sum of branches fits it."""
    narrow = replace(limits, state_bits=13, threshold_max=2**11, bias_max=2**12)
    quantizer = InputQuantizer((2, 8, 8), 1 / 15, 4)
    options = ConversionOptions("if", Schedule(4), pooling="stage")
    conversion = convert(small_resnet(), quantizer, options, narrow, name="r")
    free = convert(small_resnet(), quantizer, replace(options, watch_ranges=True), narrow, name="r")
    prove(conversion.program)
    name = "layer2.1.add"
    assert (overload(free.program)[name] > 1).any()
    lowered = conversion.program.population(name).neuron.threshold  # type: ignore[attr-defined]
    assert (lowered <= free.program.population(name).neuron.threshold).all()  # type: ignore[attr-defined]
    assert {r.name: r.lowered for r in conversion.rounding}[name] > 0
    assert any(n.startswith(f"{name}: rounding moves") for n in conversion.notes)


def test_another_search_can_take_the_place_of_this_one(limits):
    seen = []

    def halved(rows, weight_bits, target):
        seen.append((rows.name, [b.name for b in rows.branches]))
        return choose_integers(replace(rows, room=rows.room / 2), weight_bits, target)

    program, _ = fold(trace(small_resnet(), (2, 8, 8)))
    how = {
        "name": "r",
        "neuron": "if",
        "schedule": Schedule(4),
        "weight_bits": 8,
        "limits": limits,
    }
    quantizer = InputQuantizer((2, 8, 8), 1 / 15, 4)
    usual, _ = integerise(program, quantizer, **how)
    other, _ = integerise(program, quantizer, choose=halved, **how)
    assert ("layer1.0.add", ["layer1.0.conv2", "act1"]) in seen
    for a, b in zip(usual.spiking, other.spiking, strict=True):
        assert (b.neuron.threshold == np.maximum(a.neuron.threshold // 2, 1)).all()  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_scales_are_those_of_the_integers(data):
    """Where the weights need not be rounded to choose them, and where they do."""
    channels = data.draw(st.integers(1, 5))
    count, bits = data.draw(st.integers(1, 2)), data.draw(st.sampled_from([4, 8]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    spread = 10.0 ** rng.integers(-1, 2, (count, 1, 1))
    branches = tuple(
        Branch(f"b{i}", values)
        for i, values in enumerate(spread * rng.normal(size=(count, channels, 6)))
    )
    lam = data.draw(st.sampled_from([None, rng.uniform(0.5, 20.0, channels)]))
    room = data.draw(st.sampled_from([np.ones(1), rng.uniform(0.3, 1.0, channels)]))
    rows = FloatRows("layer", branches, rng.normal(size=channels), lam, room)
    limits = load_profile("loihi2").as_target_limits()
    try:
        chosen = choose_integers(rows, bits, limits)
    except ConversionError as error:
        with pytest.raises(ConversionError, match=re.escape(str(error).splitlines()[0])):
            choose_scales(rows, bits, limits)
        return
    found = choose_scales(rows, bits, limits)
    assert np.array_equal(found.theta, chosen.theta)
    assert found.scale == chosen.scale
    assert found.exponents == tuple(b.exponents(bits) for b in chosen.branches)
