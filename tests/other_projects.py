"""Stand-ins for activations and layers of other projects, and how they are converted.

The same class names, attributes and forwards as the official ones, which are not needed here.
"""

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as ao
from torch.nn import functional as F

from tests.comparing import assert_lossless
from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.conversion.frontend.user_module import output_list
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SHAPE = (2, 4, 4)
CHANNELS = np.array([0.5, 0.25, 0.125, 0.25]).reshape(1, 4, 1, 1)
QUANTIZER = InputQuantizer.for_interval(SHAPE, 0.0, 1.0)


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


def converted(model, limits):
    options = ConversionOptions("if", Schedule(4))
    return convert(model.eval(), QUANTIZER, options, limits, name="refused")


def with_activation(act):
    return nn.Sequential(nn.Conv2d(2, 4, 3), act, nn.Flatten(), nn.Linear(16, 3))


def changed(module, **attributes):
    for name, value in attributes.items():
        setattr(module, name, value)
    return module
