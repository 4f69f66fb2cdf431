"""Thresholds of plain ReLUs: the percentile against NumPy's, the networks against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.conversion.quantization.percentile import RunningPercentile
from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.program.float_program import Activation
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
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
    parts = [np.maximum(rng.normal(size=n), 0) for n in sizes]
    running = RunningPercentile(percentile, sum(sizes))
    for part in parts:
        running.add(torch.from_numpy(part))
    expected = np.percentile(np.concatenate(parts), percentile)
    assert running.value == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert len(running._largest) <= 1 + (1 - percentile / 100) * sum(sizes) + 1


def test_all_values_are_asked_for():
    running = RunningPercentile(99.0, 10)
    running.add(torch.zeros(9))
    with pytest.raises(ValueError, match="9 of 10"):
        _ = running.value


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


def outputs_of(model, x):
    """What each ReLU of Mixed puts out, by a forward written out."""
    with torch.no_grad():
        a = F.relu(model.norm(model.first(x)))
        b = F.relu(model.second(a) + a)
        c = F.relu(model.third(F.max_pool2d(b, 2).flatten(1)))
    return [v.numpy() for v in (a, b, c)]


def converted(model, calibration, limits, **options):
    options = {"neuron": "if", "schedule": Schedule(8), "relu_percentile": 99.0, **options}
    quantizer = InputQuantizer(SHAPE, 1 / 255)
    return convert(
        model, quantizer, ConversionOptions(**options), limits, name="r", calibration=calibration
    )


def test_thresholds_are_the_percentiles_of_each_relu(limits):
    torch.manual_seed(0)
    model = Mixed().eval()
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (40, *SHAPE))
    conversion = converted(model, Calibration("random", inputs), limits)
    activations = [n for n in conversion.float_program.nodes if isinstance(n, Activation)]
    outputs = outputs_of(model.double(), torch.from_numpy(inputs / 255))
    found = sorted(float(n.threshold[0]) for n in activations)
    assert found == pytest.approx(sorted(np.percentile(o, 99.0) for o in outputs))
    assert all((n.levels, n.shift, n.kind) == (8, 0.5, "relu") for n in activations)
    # Saturated: at or above the 99th percentile, so about one in a hundred.
    shares = [r.saturated for r in conversion.rounding if r.saturated is not None]
    assert len(shares) == 3
    assert shares[0] == pytest.approx(0.01, abs=0.003)
    for population in conversion.program.spiking:
        if hasattr(population.neuron, "threshold"):
            theta, start = population.neuron.threshold, population.neuron.initial_potential
            assert np.array_equal(start, theta // 2)


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


def test_without_the_option_a_relu_is_refused_with_the_option_named(limits):
    calibration = Calibration("random", np.zeros((16, *SHAPE), int))
    with pytest.raises(UnsupportedModuleError, match=r"--relu-percentile 99\.9 --calibrate DATA"):
        converted(Mixed().eval(), calibration, limits, relu_percentile=None)
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
