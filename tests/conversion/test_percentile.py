"""Thresholds of plain ReLUs: the percentile against NumPy's, the networks against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import spikeport
from toolchain.conversion.pipeline import ConversionOptions, convert, lower, prepare
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.conversion.quantization.percentile import RunningPercentile
from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.program.float_program import Activation
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import IntegrateAndFire
from toolchain.simulator.reference import simulate

SHAPE = (1, 6, 6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    percentile=st.sampled_from([90.0, 95.5, 99.0, 99.9, 100.0]),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5),
)
def test_equals_numpy(seed, percentile, sizes):
    rng = np.random.default_rng(seed)
    parts = [np.maximum(rng.normal(size=(3, n)), 0) for n in sizes]
    running = RunningPercentile(percentile, 3, sum(sizes))
    for part in parts:
        running.add(torch.from_numpy(part))
    every = np.concatenate(parts, axis=1)
    assert running.values == pytest.approx(np.percentile(every, percentile, axis=1), rel=1e-12)
    assert running._largest.shape[1] <= 1 + (1 - percentile / 100) * sum(sizes) + 1


def test_all_values_are_asked_for():
    running = RunningPercentile(99.0, 2, 10)
    running.add(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="9 of 10"):
        _ = running.values


class Mixed(nn.Module):
    """ReLU as module, function and method, with a residual sum and a max pool."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Linear(36, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = F.relu(self.second(x) + x)
        x = F.max_pool2d(x, 2)
        return self.head(self.third(x.flatten(1)).relu())


def sums_of(model, x):
    """What each ReLU of Mixed takes, by a forward written out."""
    with torch.no_grad():
        a = model.norm(model.first(x))
        b = model.second(F.relu(a)) + F.relu(a)
        c = model.third(F.max_pool2d(F.relu(b), 2).flatten(1))
    return [v.numpy() for v in (a, b, c)]


def converted(model, calibration, limits, **options):
    quantizer = InputQuantizer(SHAPE, 1 / 255)
    return convert(
        model, quantizer, options_of(**options), limits, name="r", calibration=calibration
    )


def options_of(**options):
    usual = {"neuron": "if", "schedule": Schedule(8), "relu_percentile": 99.0}
    return ConversionOptions(**{**usual, **options})


def test_thresholds_are_the_percentiles_of_each_relu(limits):
    torch.manual_seed(0)
    model = Mixed().eval()
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (40, *SHAPE))
    given, options = (model, InputQuantizer(SHAPE, 1 / 255)), options_of()
    prepared = prepare(*given, options, limits, calibration=Calibration("random", inputs))
    conversion = lower(prepared, name="r")
    activations = [n for n in prepared.folded.nodes if isinstance(n, Activation)]
    every = sums_of(model.double(), torch.from_numpy(inputs / 255))
    for name, sums in zip(("relu", "relu_1", "relu_2"), every, strict=True):
        (activation,) = (n for n in activations if n.name == name)
        rows = np.moveaxis(sums, 1, 0).reshape(sums.shape[1], -1)
        percentiles = np.percentile(np.maximum(rows, 0), 99.0, axis=1)
        expected = np.maximum(percentiles, np.abs(rows).max(1) / 64)
        assert activation.threshold == pytest.approx(expected)
    assert all((n.levels, n.shift, n.kind) == (8, 0.5, "relu") for n in activations)
    # Saturated: at or above the 99th percentile, so about one in a hundred.
    shares = [r.saturated for r in conversion.rounding if r.saturated is not None]
    assert len(shares) == 3
    assert shares[0] == pytest.approx(0.01, abs=0.003)
    for population in conversion.program.spiking:
        neuron = population.neuron
        if isinstance(neuron, IntegrateAndFire):
            assert np.array_equal(neuron.initial_potential, neuron.threshold // 2)


class Scaled(nn.Module):
    """Two layers, a sum, pools and a dense layer; channels in between are scaled and unscaled."""

    def __init__(self, scales, pool):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.branch = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.after, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(36, 3)
        self.pool = pool(2)
        scale = torch.tensor(scales)
        with torch.no_grad():
            self.first.weight *= scale[:, None, None, None]
            self.first.bias *= scale
            self.branch.weight *= scale[:, None, None, None] / scale[None, :, None, None]
            self.branch.bias *= scale
            self.after.weight *= scale[:, None, None, None] / scale[None, :, None, None]
            self.after.bias *= scale
            self.head.weight /= scale.repeat_interleave(9)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.branch(x)) + x
        return self.head(self.pool(F.relu(self.after(x))).flatten(1))


@pytest.mark.parametrize(
    ("pool", "pooling"), [(nn.AvgPool2d, "fold"), (nn.AvgPool2d, "stage"), (nn.MaxPool2d, "auto")]
)
def test_the_scale_of_a_channel_changes_no_integer(pool, pooling, limits):
    """ReLU is positively homogeneous, and powers of two are exact in float."""
    inputs = np.random.default_rng(4).integers(0, 256, (40, *SHAPE))
    plain, scaled = (
        converted(
            Scaled(scales, pool).eval(),
            Calibration("random", inputs),
            limits,
            pooling=pooling,
        ).program
        for scales in ([1.0] * 4, [1.0, 64.0, 0.125, 2.0])
    )
    assert len({int(t) for t in plain.population("first").neuron.threshold}) > 1
    for one, other in zip(plain.populations, scaled.populations, strict=True):
        assert other.neuron.arrays().keys() == one.neuron.arrays().keys()
        for name, values in one.neuron.arrays().items():
            assert np.array_equal(other.neuron.arrays()[name], values), (one.name, name)
        for a, b in zip(one.synapses, other.synapses, strict=True):
            assert all(np.array_equal(b.arrays()[k], v) for k, v in a.arrays().items())
        assert np.array_equal(one.bias, other.bias)


def test_the_spiking_network_follows_the_relu_network(limits):
    """More steps bring the logits nearer to those of the ReLU network."""
    torch.manual_seed(1)
    model = Mixed().eval()
    inputs = np.random.default_rng(1).integers(0, 256, (40, *SHAPE))
    errors = []
    for steps in (2, 8, 64):
        options = {"schedule": Schedule(steps), "relu_percentile": 100.0, "watch_ranges": True}
        program = converted(model, Calibration("random", inputs), limits, **options).program
        logits = simulate(program, inputs).logits * program.readout.neuron.scale / steps
        with torch.no_grad():
            exact = model(torch.from_numpy(inputs / 255).float()).numpy()
        errors.append(np.sqrt(((logits - exact) ** 2).mean() / exact.var()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_without_calibration_a_relu_is_refused_with_the_remedy(limits):
    calibration = Calibration("random", np.zeros((16, *SHAPE), int))
    with pytest.raises(UnsupportedModuleError, match=r"\(calibrate=DATA\)"):
        converted(Mixed().eval(), None, limits, relu_percentile=None)
    with pytest.raises(ConversionError, match="needs calibration data"):
        converted(Mixed().eval(), None, limits)
    with pytest.raises(ConversionError, match=r"allowed: 90 \.\. 100"):
        converted(Mixed().eval(), calibration, limits, relu_percentile=50.0)


def test_a_dead_relu_is_named(limits):
    torch.manual_seed(0)
    model = Mixed().eval()
    nn.init.constant_(model.third.weight, -1.0)
    nn.init.constant_(model.third.bias, -1.0)
    inputs = np.random.default_rng(0).integers(0, 256, (20, *SHAPE))
    with pytest.raises(ConversionError, match=r"this ReLU is dead"):
        converted(model, Calibration("random", inputs), limits)


def test_thresholds_that_a_single_spike_would_exceed_are_raised():
    """Weights of 5,000 that cancel on the data: one spike of the input is worth 5000 / 255."""
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight[:] = torch.tensor([[5000.0, -5000.0, 0.1, 0.0], [1.0, 0.5, -0.2, 0.1]])
        model[0].bias[:] = torch.tensor([0.0, 0.1])
    samples = torch.rand(40, 4)
    samples[:, 1] = samples[:, 0]
    conversion = spikeport.convert(model, calibrate=samples, relu_percentile=100.0)
    assert any("0: thresholds of 1 of 2 channels were raised" in n for n in conversion.notes)
    (thresholds,) = conversion.program.origin("relu_thresholds", dict).values()
    unit = conversion.program.input.scale
    assert np.isclose(thresholds[0], 5000 * unit / 127, rtol=1e-6)
    assert thresholds[1] < 2
