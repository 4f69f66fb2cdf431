"""Activations of other projects: each against its formula in NumPy, and to the last count.

The modules here stand for the official ones: the same class names, attributes and forward.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as ao
from torch.nn import functional as F

from tests.command_line import ROOT
from tests.comparing import assert_lossless
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.conversion.frontend.known_activations import ANY_CLASS, KNOWN
from toolchain.conversion.frontend.known_layers import KNOWN_LAYERS
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.frontend.user_module import output_list
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import FloatProgram, Input
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SHAPE = (2, 4, 4)
QUANTIZER = InputQuantizer.for_interval(SHAPE, 0.0, 1.0)
FAR = 3.0
"""Inputs reach this many thresholds beyond both ends of the range."""


# ---- stand-ins for the official classes


class IF(nn.Module):
    def __init__(self, thresh=1.5, L=4):
        super().__init__()
        self.thresh, self.L, self.T = nn.Parameter(torch.tensor([thresh])), L, 0

    def forward(self, x):
        x = torch.clamp(x / self.thresh, 0, 1)
        return torch.floor(x * self.L + 0.5) / self.L * self.thresh


class QCFS(nn.Module):
    def __init__(self, up=1.5, t=4):
        super().__init__()
        self.up, self.t = nn.Parameter(torch.tensor([up])), t

    def forward(self, x):
        x = torch.floor(x / self.up * self.t + 0.5) / self.t
        return torch.clamp(x, 0, 1) * self.up


class MyFloor(QCFS):
    pass


class MPLayer(nn.Module):
    def __init__(self, up=1.5, L=4, sigma=0.3):
        super().__init__()
        self.up, self.L, self.sigma = nn.Parameter(torch.tensor([up])), L, sigma
        self.snn_mode, self.train_mode, self.snn_rate = False, True, None
        self.gaps_var, self.gaps_mean = [], []

    def forward(self, x):
        x = torch.floor(torch.clamp(x / self.up, 0, 1) * self.L + 0.5) / self.L * self.up
        if self.train_mode:
            return x - torch.normal(0.0, 1.0, x.shape, device="cuda:0") * self.sigma
        gap = x - self.snn_rate
        self.gaps_var.append(torch.var(gap))
        self.gaps_mean.append(torch.mean(gap))
        return x


class ClipQuan(nn.Module):
    def __init__(self, cq_level=4):
        super().__init__()
        self.min, self.max, self.cq_level = 0.0, 1.0, cq_level

    def forward(self, x):
        return torch.floor(torch.clamp(x, self.min, self.max) * self.cq_level) / self.cq_level


class SpikeZIPQuantizer(nn.Module):
    def __init__(self, s=0.25, pos_max=5):
        super().__init__()
        self.s, self.sym = nn.Parameter(torch.tensor(s)), False
        self.register_buffer("pos_max", torch.tensor(float(pos_max)))
        self.register_buffer("neg_min", torch.tensor(0.0))

    def forward(self, x):
        return torch.clamp(torch.floor(x / self.s + 0.5), self.neg_min, self.pos_max) * self.s


class ActQuant(nn.Module):
    """The quantizer inside brevitas' layers."""

    def __init__(self, scale, bits, signed=False, narrow=False, rounding=torch.round):
        super().__init__()
        self.register_buffer("s", torch.as_tensor(scale))
        self.bits, self.is_signed, self.is_narrow_range = bits, signed, narrow
        self.is_quant_enabled, self.rounding = True, rounding

    def scale(self):
        return self.s

    def zero_point(self):
        return torch.tensor(0.0)

    def bit_width(self):
        return torch.tensor(float(self.bits))

    def forward(self, x):
        low = -(2 ** (self.bits - 1)) + self.is_narrow_range if self.is_signed else 0
        high = 2 ** (self.bits - self.is_signed) - 1
        high -= self.is_narrow_range and not self.is_signed
        return torch.clamp(self.rounding(x / self.s), low, high) * self.s


class Off(nn.Identity):
    is_quant_enabled = False


class QuantIdentity(nn.Module):
    def __init__(self, *how, **named):
        super().__init__()
        self.act_quant, self.input_quant = ActQuant(*how, **named), Off()

    def forward(self, x):
        return self.act_quant(x)


def brevitas_relu(*how, **named):
    class QuantReLU(QuantIdentity):
        def forward(self, x):
            return self.act_quant(F.relu(x))

    return QuantReLU(*how, **named)


def fast_snn_relu(bit=2, alpha=1.75, grid=None):
    class QuantReLU(nn.ReLU):
        def __init__(self):
            super().__init__(inplace=True)
            self.bit, self.act_alpha = 4, nn.Parameter(torch.tensor(alpha))

        def forward(self, x):
            x = F.relu(x, inplace=True).div(self.act_alpha).clamp(0, 1)
            if grid is None:
                return (x * (2**bit - 1)).round() / (2**bit - 1) * self.act_alpha
            near = (x.reshape(-1, 1) - grid.to(x)).abs().argmin(1)
            return grid.to(x)[near].reshape(x.shape) * self.act_alpha

    return QuantReLU()


def fake_quantize(scale=0.25, zero_point=0, low=0, high=7, kind=ao.FakeQuantize):
    observer = ao.FixedQParamsObserver.with_args(
        scale=scale, zero_point=zero_point, dtype=torch.quint8, quant_min=low, quant_max=high
    )
    if kind is ao.FixedQParamsFakeQuantize:
        made = kind(observer=observer)
    else:
        made = kind(observer=observer, quant_min=low, quant_max=high, dtype=torch.quint8)
        made(torch.zeros(1))
    made.disable_observer()
    return made.eval()


def fixed(scale=0.25, zero_point=0, low=0, high=7):
    return fake_quantize(scale, zero_point, low, high, ao.FixedQParamsFakeQuantize)


def per_channel(axis):
    """Scales that the observer takes from values up to seven of them."""
    made = ao.FakeQuantize(ao.PerChannelMinMaxObserver, 0, 7, dtype=torch.quint8, ch_axis=axis)
    values = torch.linspace(0, 1, 8) * 7 * torch.tensor(CHANNELS.reshape(4, 1)).float()
    made(values.T if axis == 1 else values[:2].reshape(1, 1, 2, 8))
    made.disable_observer()
    return made.eval()


# ---- their formulas, from the official code, in NumPy


def by_floor(x, lam, levels):
    return lam * np.clip(np.floor(x / lam * levels + 0.5) / levels, 0, 1)


def by_clip_and_floor(x, lam, levels):
    return lam * np.floor(np.clip(x / lam, 0, 1) * levels + 0.5) / levels


def by_round(x, scale, high):
    return scale * np.clip(np.rint(x / scale), 0, high)


CHANNELS = np.array([0.5, 0.25, 0.125, 0.25]).reshape(1, 4, 1, 1)
CASES = {
    "IF": (IF, lambda x: by_clip_and_floor(x, 1.5, 4), 4),
    "QCFS of COS and SRP": (QCFS, lambda x: by_floor(x, 1.5, 4), 4),
    "MyFloor": (MyFloor, lambda x: by_floor(x, 1.5, 4), 4),
    "NQ": (MPLayer, lambda x: by_clip_and_floor(x, 1.5, 4), 4),
    "CASC": (ClipQuan, lambda x: np.floor(np.clip(x, 0, 1) * 4) / 4, 4),
    "SpikingJelly": (SpikeZIPQuantizer, lambda x: 0.25 * np.clip(np.floor(x * 4 + 0.5), 0, 5), 5),
    "brevitas, power of two": (
        lambda: brevitas_relu(0.25, 3),
        lambda x: by_round(np.maximum(x, 0), 0.25, 7),
        7,
    ),
    "brevitas, real scale": (
        lambda: brevitas_relu(0.3712, 2),
        lambda x: by_round(np.maximum(x, 0), np.float32(0.3712), 3),
        3,
    ),
    "brevitas, per channel": (
        lambda: brevitas_relu(CHANNELS, 2),
        lambda x: by_round(np.maximum(x, 0), CHANNELS, 3),
        3,
    ),
    "brevitas, narrow": (
        lambda: brevitas_relu(0.25, 3, narrow=True),
        lambda x: by_round(np.maximum(x, 0), 0.25, 6),
        6,
    ),
    "brevitas, signed behind its ReLU": (
        lambda: brevitas_relu(0.25, 3, signed=True),
        lambda x: by_round(np.maximum(x, 0), 0.25, 3),
        3,
    ),
    "brevitas QuantIdentity": (lambda: QuantIdentity(0.25, 3), lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize": (fake_quantize, lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize, zero point at its lower end": (
        lambda: fake_quantize(0.25, 3, 3, 8),
        lambda x: 0.25 * (np.clip(np.rint(x / 0.25 + 3), 3, 8) - 3),
        5,
    ),
    "FixedQParamsFakeQuantize": (fixed, lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize, per channel": (
        lambda: per_channel(1),
        lambda x: by_round(x, np.float32(CHANNELS), 7),
        7,
    ),
    "Fast-SNN": (
        lambda: fast_snn_relu(3),
        lambda x: 1.75 * np.rint(np.clip(np.maximum(x, 0) / 1.75, 0, 1) * 7) / 7,
        7,
    ),
}


def is_near_a_tie(x, lam, levels, shift):
    steps = x / lam * levels + shift
    return np.abs(steps - np.rint(steps)) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_formulas(name):
    make, formula, levels = CASES[name]
    spec = find_adapter(make())(make())  # type: ignore[misc]
    lam = spec.threshold_array().reshape(1, -1, 1, 1)
    assert spec.levels == levels
    x = np.random.default_rng(0).uniform(-FAR, 1 + FAR, (500, 4, 1, 1)) * lam
    described = lam * np.clip(np.floor(x / lam * levels + spec.shift), 0, levels) / levels
    apart = ~is_near_a_tie(x, lam, levels, spec.shift)
    assert apart.mean() > 0.9
    assert np.allclose(described[apart], formula(x)[apart], rtol=1e-6, atol=0)


def network(make):
    """Weights are multiples of 1/8, which are exact as integers; biases keep sums off the ties."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        make(),
        nn.Conv2d(4, 4, 3, stride=2),
        make(),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    with torch.no_grad():
        for layer in (model[i] for i in (0, 2, 5)):
            layer.weight.copy_(torch.randint(-4, 6, layer.weight.shape) / 8)
            layer.bias.copy_(torch.randint(-4, 6, layer.bias.shape) / 8 + 0.017)
    return model.eval()


def assert_every_count_agrees(model, limits, acts, levels):
    """The settled CIF network has the counts of the module's own activations."""
    options = ConversionOptions("cif", Schedule(levels, 40))
    conversion = convert(model, QUANTIZER, options, limits, name="known")
    assert all(
        bound.headroom_bits(conversion.program.state_range) >= 0 for bound in conversion.bounds
    )
    inputs = np.random.default_rng(1).integers(0, 256, (12, *SHAPE))
    recording = simulate(conversion.program, inputs)
    assert_lossless(conversion.program, inputs, recording)
    samples = torch.from_numpy(inputs * QUANTIZER.scale)
    for layer, act, levels_of in acts:
        (values, *_) = output_list(own(model[: act + 1], samples))
        lam = find_adapter(model[act])(model[act]).threshold_array()  # type: ignore[misc]
        counts = values.numpy() / lam.reshape(1, -1, 1, 1) * levels_of
        assert (recording.counts[layer] != np.rint(counts)).sum() == 0
        assert len(np.unique(recording.counts[layer])) > 2


@torch.no_grad()
def own(model, samples):
    for module in model:
        if isinstance(module, MPLayer):
            module.train_mode, module.snn_rate = False, 0.0
    return model.float()(samples.float())


@pytest.mark.parametrize("name", CASES)
def test_every_count_of_a_network(name, limits):
    make, _, levels = CASES[name]
    acts = [("0", 1, levels), ("2", 3, levels)]
    assert_every_count_agrees(network(make), limits, acts, levels)


# ---- layers with quantized weights


class WeightQuant(nn.Module):
    """Brevitas' weights: symmetric integers of the largest magnitude, rounded half to even."""

    def __init__(self, bits=4, value=tuple):
        super().__init__()
        self.bits = bits

    def forward(self, weight):
        scale = weight.abs().max() / (2 ** (self.bits - 1) - 1)
        return torch.round(weight / scale) * scale


class QuantConv2d(nn.Conv2d):
    def __init__(self, *how, output=None, **named):
        super().__init__(*how, **named)
        self.weight_quant, self.output = WeightQuant(), output or nn.Identity()

    def forward(self, x):
        weight = self.weight_quant(self.weight)
        return self.output(self._conv_forward(x, weight, self.bias))


class QuantLinear(nn.Linear):
    def __init__(self, *how):
        super().__init__(*how)
        self.weight_quant = WeightQuant()

    def forward(self, x):
        return F.linear(x, self.weight_quant(self.weight), self.bias)


class AlphaConv2d(nn.Conv2d):
    """Fast-SNN: normalised weights, clipped at alpha, on the nearest sum of powers of two."""

    def __init__(self, *how):
        super().__init__(*how)
        self.bit, self.weight_alpha = 3, nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        weight = self.weight.add(-self.weight.mean()).div(self.weight.std())
        grid = torch.tensor([-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0]).to(weight) / 4
        near = (weight.div(self.weight_alpha).clamp(-1, 1).unsqueeze(-1) - grid).abs().argmin(-1)
        return self._conv_forward(x, grid[near] * self.weight_alpha, self.bias)


AlphaConv2d.__name__ = "QuantConv2d"


class first_conv(nn.Conv2d):
    layer_type = "FConv2d"

    def forward(self, x):
        top = self.weight.data.max()
        weight = self.weight.div(top).mul(127).round().div(127).mul(top)
        weight = (weight - self.weight).detach() + self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class last_fc(nn.Linear):
    layer_type = "LFC"

    def forward(self, x):
        top = self.weight.data.max()
        weight = self.weight.div(top).mul(127).round().div(127).mul(top)
        return F.linear(x, weight, self.bias)


def in_numpy(kind, weight):
    """The quantized weights, from the official formulas."""
    if kind in ("first_conv", "last_fc"):
        return np.rint(weight / weight.max() * 127) / 127 * weight.max()
    if kind == "AlphaConv2d":
        grid = np.array([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
        normal = np.clip((weight - weight.mean()) / weight.std(ddof=1) / 2.0, -1, 1)
        return 2.0 * grid[np.abs(normal[..., None] - grid).argmin(-1)]
    scale = np.abs(weight).max() / 7
    return np.rint(weight / scale) * scale


def qat(kind, *how):
    quantizer = ao.FakeQuantize.with_args(
        observer=ao.MinMaxObserver,
        quant_min=-7,
        quant_max=7,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    config = ao.QConfig(activation=nn.Identity, weight=quantizer)
    layer = kind(*how, qconfig=config)
    layer.weight_fake_quant(layer.weight)
    layer.apply(ao.disable_observer)
    return layer.eval()


LAYERS = {
    "QuantConv2d": lambda: QuantConv2d(2, 4, 3, padding=1),
    "QuantLinear": lambda: QuantLinear(32, 4),
    "AlphaConv2d": lambda: AlphaConv2d(2, 4, 3),
    "first_conv": lambda: first_conv(2, 4, 3, padding=1),
    "last_fc": lambda: last_fc(32, 4),
    "qat Conv2d": lambda: qat(torch.ao.nn.qat.Conv2d, 2, 4, 3),
    "qat Linear": lambda: qat(torch.ao.nn.qat.Linear, 32, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_quantized_weights_are_plain_layers_of_those_weights(name):
    torch.manual_seed(5)
    layer = LAYERS[name]()
    plain = find_adapter(layer)(layer)  # type: ignore[misc]
    if name.startswith("qat"):
        scale = float(layer.weight_fake_quant.scale)
        expected = scale * np.clip(np.rint(layer.weight.detach().numpy() / scale), -7, 7)
    else:
        expected = in_numpy(name, layer.weight.detach().double().numpy())
    assert type(plain) is (nn.Conv2d if expected.ndim == 4 else nn.Linear)
    assert np.allclose(plain.weight.detach().numpy(), expected, rtol=1e-6, atol=1e-12)
    assert torch.equal(plain.bias, layer.bias.double())
    assert np.abs(expected - layer.weight.detach().numpy()).max() > 1e-4


@pytest.mark.parametrize("quantized", ["brevitas", "Fast-SNN"])
def test_every_count_of_a_network_with_quantized_weights(quantized, limits):
    torch.manual_seed(4)
    if quantized == "brevitas":
        first, last = QuantConv2d(2, 4, 3, padding=1), QuantLinear(4, 3)
        middle, act = QuantConv2d(4, 4, 3, stride=2), lambda: brevitas_relu(0.125, 3)
    else:
        first, last = first_conv(2, 4, 3, 1, 1), last_fc(4, 3)
        middle, act = AlphaConv2d(4, 4, 3, 2), lambda: fast_snn_relu(3)
    model = nn.Sequential(first, act(), middle, act(), nn.Flatten(), last).eval()
    acts = [("0", 1, 7), ("2", 3, 7)]
    assert_every_count_agrees(model, limits, acts, 7)


def test_a_relu_in_front_of_quantized_weights_stays(limits):
    """It is left out in front of a quantized activation only."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), QuantConv2d(4, 4, 1), IF(), nn.Flatten(), nn.Linear(16, 3)
    )
    with pytest.raises(UnsupportedModuleError, match=r"^1: a plain ReLU has no threshold"):
        converted(model, limits)


# ---- what is refused, and why


def converted(model, limits):
    options = ConversionOptions("if", Schedule(4))
    return convert(model.eval(), QUANTIZER, options, limits, name="refused")


def with_activation(act):
    return nn.Sequential(nn.Conv2d(2, 4, 3), act, nn.Flatten(), nn.Linear(16, 3))


def changed(module, **attributes):
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


class Neuron(nn.Module):
    """What COS and SRP put in place of QCFS: pre-simulation, then spikes."""

    v_threshold, presim_len, t, neuron = 1.0, 4, 0, None

    def forward(self, x):
        return torch.floor(x)


def named(name, **attributes):
    return changed(type(name, (Neuron,), {})(), **attributes)


APOT = torch.tensor([0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0])
REFUSED = {
    "spiking QCFS": (lambda: changed(IF(), T=4), "spiking form", "T = 4"),
    "noisy QCFS of NQ": (lambda: changed(QCFS(), sigma=0.1), "adds noise", "sigma = 0.1"),
    "spiking NQ": (lambda: changed(MPLayer(), snn_mode=True), "spiking form", "snn_mode = True"),
    "MPLayer of COS": (lambda: named("MPLayer"), "spiking form", "MPLayer"),
    "IFNeuron": (lambda: named("IFNeuron"), "spiking form", "IFNeuron"),
    "CASC beyond 1": (lambda: changed(ClipQuan(), max=2.0), "another interval", r"0\.0 \.\. 2\.0"),
    "brevitas without quantizer": (
        lambda: changed(brevitas_relu(0.25, 3), act_quant=Off()),
        "switched off",
        "act_quant",
    ),
    "brevitas with input_quant": (
        lambda: changed(brevitas_relu(0.25, 3), input_quant=ActQuant(0.25, 3)),
        "quantizes its input too",
        "input_quant",
    ),
    "brevitas, rounded down": (
        lambda: brevitas_relu(0.25, 3, rounding=torch.floor),
        "not rounded to the nearest",
        "0 for 0.1875, where even levels give 0.25",
    ),
    "brevitas, 32 bits": (lambda: brevitas_relu(0.25, 32), "more levels", "4294967295"),
    "brevitas QuantIdentity, signed": (
        lambda: QuantIdentity(0.25, 3, signed=True),
        "also encodes negative values",
        "behind a ReLU",
    ),
    "observer on": (
        lambda: changed(fake_quantize(), observer_enabled=torch.ones(1, dtype=torch.uint8)),
        "observer of the fake-quantizer is on",
        "observer_enabled = 1",
    ),
    "fake-quantizer off": (
        lambda: changed(fake_quantize(), fake_quant_enabled=torch.zeros(1, dtype=torch.uint8)),
        "switched off",
        "fake_quant_enabled = 0",
    ),
    "FakeQuantize along the rows": (lambda: per_channel(2), "another axis", "ch_axis = 2"),
    "FakeQuantize with a zero point inside": (
        lambda: fake_quantize(0.25, 2, 0, 7),
        "also encodes negative values",
        "behind a ReLU",
    ),
    "FakeQuantize without zero": (
        lambda: fake_quantize(0.25, 0, 2, 7),
        "zero point that no spike count has",
        r"zero point 0 in 2 \.\. 7",
    ),
    "Fast-SNN, sums of powers of two": (
        lambda: fast_snn_relu(grid=APOT),
        "not evenly spaced",
        "power=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name, limits):
    make, why, detail = REFUSED[name]
    with pytest.raises(UnsupportedModuleError, match=rf"(?s)^1: .*{why}.*{detail}"):
        converted(with_activation(make()), limits)


@pytest.mark.parametrize(
    "make", [lambda: fake_quantize(0.25, 2, 0, 7), lambda: QuantIdentity(0.25, 4, signed=True)]
)
def test_signed_quantizers_behind_a_relu(make, limits):
    """Their negative values do not occur there: levels 1 to high - zero point stay."""
    act = make()
    model = network(lambda: nn.Sequential(nn.ReLU(), make()))
    levels = find_adapter(act)(act).levels  # type: ignore[misc]
    assert levels == (5 if isinstance(act, ao.FakeQuantize) else 7)
    conversion = convert(
        model, QUANTIZER, ConversionOptions("cif", Schedule(levels, 40)), limits, name="s"
    )
    inputs = np.random.default_rng(1).integers(0, 256, (12, *SHAPE))
    recording = simulate(conversion.program, inputs)
    z = model.double()[:2](torch.from_numpy(inputs * QUANTIZER.scale)).detach().numpy()
    expected = np.clip(np.rint(np.maximum(z, 0) * 4), 0, levels)
    assert np.array_equal(recording.counts["0"], expected)


def test_a_bias_with_the_scale_of_the_input_is_refused(limits):
    layer = QuantConv2d(2, 4, 3)
    layer.bias_quant = changed(nn.Identity(), requires_input_scale=True)
    with pytest.raises(UnsupportedModuleError, match=r"^0: the scale of the bias comes from"):
        converted(nn.Sequential(layer, IF(), nn.Flatten(), nn.Linear(16, 3)), limits)


@pytest.mark.parametrize("what", ["output", "input", "observer", "activation"])
def test_layers_that_do_more_are_refused(what, limits):
    layer = QuantConv2d(2, 4, 3)
    if what == "output":
        layer.output = ActQuant(0.25, 3)
    elif what == "input":
        layer = QuantConv2d(2, 4, 3, padding=1, padding_mode="circular")
    elif what == "observer":
        layer = qat(torch.ao.nn.qat.Conv2d, 2, 4, 3)
        layer.apply(ao.enable_observer)
    else:
        layer.output = nn.ReLU()
    why = "observer of the weights is on" if what == "observer" else "layer does more than"
    model = nn.Sequential(layer, IF(), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, *SHAPE))
    with pytest.raises(UnsupportedModuleError, match=f"^0: the {why}"):
        converted(model, limits)


def test_nq_is_left_as_it_was(limits):
    model = network(MPLayer)
    before = [dict(vars(model[i])) for i in (1, 3)]
    converted(model, limits)
    assert [dict(vars(model[i])) for i in (1, 3)] == before
    assert model[1].gaps_var == []
    assert model[1].train_mode


# ---- the real package, and the page


def test_a_real_brevitas_network(limits):
    qnn = pytest.importorskip("brevitas.nn")
    torch.manual_seed(0)

    def relu(top, **how):
        return qnn.QuantReLU(bit_width=3, scaling_impl_type="const", max_val=top, **how)

    model = nn.Sequential(
        qnn.QuantConv2d(2, 4, 3, padding=1, weight_bit_width=4),
        relu(0.875, return_quant_tensor=True),
        qnn.QuantConv2d(
            4, 4, 3, stride=2, weight_bit_width=4, weight_scaling_per_output_channel=True
        ),
        relu(0.4375),
        nn.Flatten(),
        qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4),
    ).eval()
    assert_every_count_agrees(model, limits, [("0", 1, 7), ("2", 3, 7)], 7)


def test_the_page_lists_what_is_known():
    page = (ROOT / "docs/QUICKSTART.md").read_text()
    section = page.partition("## Activations of other projects")[2].partition("\n## ")[0]
    listed = {
        (name, attributes)
        for name, attributes in re.findall(r"^\| .* \| `(.+?)` \| `(.+?)` \|", section, re.M)
    }
    known = {(name, ", ".join(attributes)) for name, attributes, _ in KNOWN}
    known |= {(name, ", ".join(attributes)) for name, attributes in KNOWN_LAYERS}
    assert listed == {("any" if name == ANY_CLASS else name, a) for name, a in known}


def test_ties_round_up():
    """Where the module rounds half to even: 1/2 goes to 0 there and to 1 here, 3/2 to 2 in both."""
    act, scale = brevitas_relu(0.25, 3), 0.25
    program = trace(with_activation(act), SHAPE)
    ties = torch.tensor([0.5, 1.5, 2.5]) * scale
    node = replace(program.node("1"), sources=("input",))
    described = evaluate(FloatProgram((Input("input", (), (3,)), node), ("1",)), ties[None])
    assert (described / scale).tolist() == [[1.0, 2.0, 3.0]]
    assert (act(ties) / scale).tolist() == [0.0, 2.0, 2.0]
