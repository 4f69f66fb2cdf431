"""Transposed convolutions and nearest upsampling, held against the modules that they come from."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.branched_modules import randomise
from toolchain.conversion.float_values import node_values
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.passes.layers import SumLayer, layers_of
from toolchain.conversion.quantization.spike_values import spikes_of
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import CQReLU
from toolchain.program.float_program import CONSTANT, Activation, Conv2d, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer

SHAPE = (4, 5, 6)


def act():
    return CQReLU(4)


def assert_converts(model, shape=SHAPE):
    """The folded program, which computes what the module does."""
    model = randomise(model).double().eval()
    program, _ = fold(trace(model, shape))
    layers_of(program)
    samples = torch.rand(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        wanted = model(samples)
    values = node_values(program, samples)
    for output, of_module in zip(program.outputs, outputs_of(wanted), strict=True):
        assert torch.allclose(values[output], of_module, rtol=1e-9, atol=1e-9)
    return program


def outputs_of(result):
    return result if isinstance(result, tuple) else (result,)


def constants(program):
    """The activations that always have the value 1."""
    return [n for n in program.nodes if isinstance(n, Activation) and n.kind == CONSTANT]


SMALL = st.integers(1, 3)
PAIR = st.tuples(SMALL, SMALL)
TRANSPOSED = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stride": PAIR,
        "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "output_padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
    }
)


def possible(layer, shape):
    """The layer, if torch gives an output with it."""
    try:
        assume(layer(torch.zeros(1, *shape)).numel() > 0)
    except RuntimeError:
        assume(False)
    return layer


@settings(max_examples=100)
@given(how=TRANSPOSED)
def test_transposed_convolutions(how):
    layer = possible(nn.ConvTranspose2d(4, 6, **how), SHAPE)
    program = assert_converts(layer)
    conv = program.node(program.outputs[0])
    assert isinstance(conv, Conv2d)
    assert conv.upsample == how["stride"]


@settings(max_examples=40)
@given(
    how=TRANSPOSED.map(lambda how: {k: v[0] if type(v) is tuple else v for k, v in how.items()}),
    pad=st.integers(0, 2),
)
def test_transposed_convolutions_of_sequences(how, pad):
    layer = possible(nn.ConvTranspose1d(4, 6, **how), (4, 7 + pad))

    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(F.pad(x[:, :, 0], (pad, 0)))[:, :, None]

    assert_converts(Sequence(), (4, 1, 7))


def test_transposed_convolutions_as_functions():
    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ConvTranspose2d(4, 2, 3, stride=2, bias=False)
            self.weight = nn.Parameter(torch.rand(2, 3, 2, 2))
            self.act = act()

        def forward(self, x):
            x = self.act(self.first(F.pad(x, (1, 0, 0, 2)), output_size=(16, 15)))
            return F.conv_transpose2d(x, self.weight, None, 3, output_padding=1)

    assert_converts(Functions())


class Resized(nn.Module):
    """Upsampled as `how` says, after an activation or before it, alone or with a convolution."""

    def __init__(self, early, conv, **how):
        super().__init__()
        self.stem, self.act, self.act2 = nn.Conv2d(4, 3, 1), act(), act()
        self.conv, self.early, self.how = conv, early, how

    def forward(self, x):
        x = self.stem(x)
        x = x if self.early else self.act(x)
        x = F.interpolate(x, **self.how)
        return self.conv(self.act2(x) if self.early else x)


@settings(max_examples=60)
@given(
    factors=PAIR,
    crop=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    early=st.booleans(),
    kernel=SMALL,
    padding=st.integers(0, 1),
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 3]),
)
def test_nearest_upsampling(factors, crop, early, kernel, padding, stride, groups):
    """Also where the last rows and columns occur less often, as with an odd size."""
    size = [n * f - min(c, f - 1) for n, f, c in zip(SHAPE[1:], factors, crop, strict=True)]
    scale = [s / n for s, n in zip(size, SHAPE[1:], strict=True)]
    nearest = [np.floor(np.arange(s) / k) for s, k in zip(size, scale, strict=True)]
    whole = all(
        np.array_equal(p, np.arange(s) // f) for p, s, f in zip(nearest, size, factors, strict=True)
    )
    conv = nn.Conv2d(3, 6, kernel, stride, padding, groups=groups)
    model = Resized(early, conv, size=tuple(size))
    if not whole:
        with pytest.raises(UnsupportedModuleError, match="repeated a whole number of times"):
            trace(model, SHAPE)
        return
    program = assert_converts(model)
    convs = [n for n in program.nodes if isinstance(n, Conv2d)]
    upsampled = convs[0] if early else convs[1]
    assert upsampled.upsample == factors
    stages = [x for x in layers_of(program) if isinstance(x, SumLayer)]
    assert len(convs) == 2 + len(stages)
    if stages:  # what is cropped differs beyond the border
        assert size != [n * f for n, f in zip(SHAPE[1:], factors, strict=True)]
        assert padding
    else:
        assert early or upsampled.groups == groups


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("early", [True, False])
def test_pixel_shuffles(factor, early):
    """Sub-pixel convolution: each of the pixels that take a value's place is another channel."""
    conv = nn.Conv2d(4, 2 * factor**2, 3, padding=1, bias=not early)
    shuffle = nn.PixelShuffle(factor)
    middle = (conv, shuffle, act()) if early else (conv, act(), shuffle)
    program = assert_converts(nn.Sequential(*middle, nn.Conv2d(2, 3, 3, padding=1)))
    upsampled = [n.upsample for n in program.nodes if isinstance(n, Conv2d)]
    assert upsampled == [(1, 1), (factor,) * 2]  # an activation does not care where values lie

    class Cropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2 * factor**2, 1)
            self.act, self.out = act(), nn.Conv2d(2, 1, 1)

        def forward(self, x):
            x = self.conv(self.act(self.first(x)))
            return self.out(F.pixel_shuffle(x, factor)[:, :, 1:, :-1])

    assert len(constants(assert_converts(Cropped()))) == 1  # the bias differs from pixel to pixel


ONE_AFTER_THE_OTHER = {
    "conv": lambda: nn.Conv2d(4, 4, 3),
    "pads": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 4, 2, stride=2, bias=False),
    "pointwise": lambda: nn.Conv2d(4, 4, 1),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "grouped": lambda: nn.Conv2d(4, 4, 2, groups=2, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 2, stride=2),
    "cropped": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=2),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "shuffled": lambda: nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(2)),
    "mean": lambda: nn.AvgPool2d(2),
    "normed": lambda: nn.BatchNorm2d(4),
    "act": act,
}
REASONS = (
    "the second pads|a strided layer and an upsampling|must follow a convolution|cannot be folded|"
    "no average pool is folded|cannot be joined|changes at the border|an average pool must be|"
    "takes two or more|cannot change places"
)


@settings(max_examples=120)
@example(names=["transposed", "pads"])
@example(names=["nearest", "depthwise", "pointwise"])
@example(names=["pointwise", "nearest", "pads"])
@example(names=["conv", "nearest", "nearest"])
@given(names=st.lists(st.sampled_from(sorted(ONE_AFTER_THE_OTHER)), min_size=2, max_size=4))
def test_layers_in_any_order(names):
    """All that converts is right; the rest is refused with its reason."""
    layers = [ONE_AFTER_THE_OTHER[name]() for name in names]
    stem = [nn.Conv2d(4, 4, 1), act()]
    model = nn.Sequential(*stem, *layers, act(), nn.Conv2d(4, 2, 1))
    possible(model, (4, 8, 8))
    try:
        assert_converts(model, (4, 8, 8))
    except UnsupportedModuleError as error:
        refused = error
    else:
        return
    assert re.search(REASONS, str(refused)), refused


def test_a_bias_that_ends_at_the_border():
    """A U-Net's step up: what the transposed convolution adds, the zeros of the padding lack."""
    up, conv = nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Conv2d(3, 2, 3, padding=1)
    program = assert_converts(nn.Sequential(nn.Conv2d(4, 4, 1), act(), up, conv, act(), conv_out()))
    ones, around = constants(program)
    values = node_values(program, torch.rand(2, *SHAPE, dtype=torch.float64))
    inside = torch.zeros_like(values[ones.name])
    assert (values[ones.name] == 1).all()
    assert torch.equal(values[around.name], F.pad(inside, (1, 1, 1, 1), value=1.0))
    up.bias = None
    bare = assert_converts(nn.Sequential(nn.Conv2d(4, 4, 1), act(), up, conv, act(), conv_out()))
    assert not constants(bare)


@pytest.mark.parametrize("before", [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)])
def test_a_constant_in_front_of_a_transposed_convolution(before):
    """Each of its outputs meets another part of the kernel, also inside the image."""
    up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    layers = (nn.Conv2d(4, 4, 1), act(), before, up, act(), nn.Conv2d(3, 2, 1))
    program = assert_converts(nn.Sequential(*layers))
    assert len(constants(program)) == 1


class Pyramid(nn.Module):
    """A feature pyramid: each sum is read by a convolution, and upsampled for the next one."""

    def __init__(self):
        super().__init__()
        channels = (4, 3, 4, 5)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), act()) for a, b in pairwise(channels)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, 3, 1) for c in channels[1:])
        self.out = nn.ModuleList(nn.Conv2d(3, 2, 3, padding=1) for _ in channels[1:])

    def forward(self, x):
        features = []
        for down in self.down:
            x = down(x)
            features.append(x)
        results, above = [], None
        for lateral, out in zip(reversed(self.lateral), self.out, strict=True):
            x = features.pop()
            above = lateral(x) + (0 if above is None else F.interpolate(above, size=x.shape[2:]))
            results.append(out(above))
        return tuple(results)


def test_a_feature_pyramid():
    """Sums with several users, upsampled several times: one plane of ones for each size."""
    program = assert_converts(Pyramid(), (4, 16, 24))
    ones = [n.source for n in constants(program) if n.source.startswith("ones")]
    assert sorted(ones) == ["ones[2x3]", "ones[4x6]", "ones[8x12]"]
    assert_converts(Pyramid(), (4, 24, 16))


def test_a_crop_in_another_order_keeps_what_its_spikes_are_worth():
    model = nn.Sequential(nn.Conv2d(4, 3, 1), act(), Crop(), nn.Conv2d(3, 2, 3, padding=1))
    program, notes = fold(trace(model.eval(), SHAPE))
    assert any("what it copies is a stage of its own" in note for note in notes)
    each = {"threshold": np.array([1.0, 2.0, 3.0])}
    nodes = [replace(n, **each) if isinstance(n, Activation) else n for n in program.nodes]
    layers = layers_of(FloatProgram(tuple(nodes), program.outputs))
    worth = spikes_of(layers, InputQuantizer.for_interval(SHAPE, 0.0, 1.0))
    assert [worth[x.name].value.tolist() for x in layers[:2]] == [[1, 2, 3], [3, 1, 2]]


class Crop(nn.Module):
    def forward(self, x):
        return x[:, [2, 0, 1], 1:-1, 1:]


def conv_out():
    return nn.Conv2d(2, 2, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear"), r"(?s)between pixels.*ConvTranspose2d"),
        (nn.Upsample(scale_factor=1.5), "repeated a whole number of times"),
        (nn.Sequential(nn.Upsample(scale_factor=2), nn.MaxPool2d(3)), "max pool of values that"),
    ],
)
def test_what_is_refused(model, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        fold(trace(nn.Sequential(nn.Conv2d(4, 4, 1), act(), model, nn.Conv2d(4, 2, 1)), SHAPE))
