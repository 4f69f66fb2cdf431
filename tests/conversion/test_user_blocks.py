"""Blocks of published networks, and layers without activations between them.

The oracle is the module itself, run by torch in float64.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.forwards import SHAPE, Net, act, assert_converts, body
from toolchain.conversion.passes.layers import layers_of
from toolchain.learning.activations import CQReLU


class Shuffled(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, and the halves are interleaved."""

    def __init__(self, activation=act):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
            activation(),
            nn.Conv2d(4, 4, 3, padding=1, groups=4),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
            activation(),
        )

    def forward(self, x):
        first, second = x.chunk(2, dim=1)
        x = torch.cat((first, self.branch(second)), 1)
        b, c, h, w = x.size()
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


def test_channels_that_are_split_and_shuffled():
    stem = nn.Sequential(nn.Conv2d(4, 8, 1), act())
    head = nn.Sequential(nn.Conv2d(8, 3, 3), act(), nn.Flatten(), nn.Linear(72, 2))
    without_padding = Shuffled()
    for norm in (without_padding.branch[1], without_padding.branch[4]):
        nn.init.zeros_(norm.bias)
    _, notes = assert_converts(nn.Sequential(stem, without_padding, Shuffled(), head))
    assert any("merged with 1.branch.3 before it" in note for note in notes)
    assert_converts(nn.Sequential(stem, nn.ChannelShuffle(4), head))


def test_the_shortcut_of_the_first_residual_networks():
    """Every second pixel, with channels of zeros on both sides (He et al. 2016, option A)."""

    def forward(m, x):
        x = m.act(m.conv(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3), "constant", 0)
        return m.fc(m.act(m.down(x) + short).flatten(1))

    layers = {"down": nn.Conv2d(6, 12, 3, 2, 1), "fc": nn.Linear(144, 3)}
    assert_converts(Net(forward, **(body() | layers)))


def test_a_classifier_that_wants_more_pixels_than_there_are():
    """VGG's AdaptiveAvgPool2d(7) on small images repeats them."""
    layers = (nn.Conv2d(4, 3, (6, 8)), act(), nn.AdaptiveAvgPool2d(7), nn.Flatten())
    assert_converts(nn.Sequential(*layers, nn.Linear(147, 5)))


def test_pixels_in_front_of_a_convolution_become_channels():
    layers = {"conv": nn.Conv2d(16, 6, 1), "fc": nn.Linear(72, 5), "act": act()}
    for unshuffle in (
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
    ):
        work = lambda m, x: m.fc(m.act(m.conv(unshuffle(x))).flatten(1))  # noqa: B023, E731
        assert_converts(Net(work, **layers))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, 1:-1, 2:],
        lambda x: x[:, :, 1:-1, 1:-1].flip(1),
        lambda x: F.interpolate(x[:, :3], scale_factor=2)[:, [0, 1, 2, 2, 1, 0]],
        lambda x: F.interpolate(x[:, 3:], scale_factor=(1, 2)).repeat(1, 2, 1, 1),
    ],
)
def test_copies_in_front_of_a_convolution_that_pads(view):
    """Beyond the border of a crop lie values that the padding does not have."""
    layers = body() | {"next": nn.Conv2d(6, 3, 3, padding=1), "fc": nn.LazyLinear(5)}
    model = Net(lambda m, x: m.fc(m.next(view(m.act(m.conv(x)))).flatten(1)), **layers)
    model(torch.zeros(1, *SHAPE))
    assert_converts(model)


def test_channels_behind_an_activation_become_pixels():
    layers = {"conv": nn.Conv2d(4, 12, 3, padding=1), "act": act(), "fc": nn.Conv2d(3, 2, 3)}
    for shuffle in (
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: x.view(-1, 2, 2, 3, 6, 8).permute(0, 3, 4, 1, 5, 2).reshape(-1, 3, 12, 16),
    ):
        work = lambda m, x: m.fc(shuffle(m.act(m.conv(x))))  # noqa: B023, E731
        assert_converts(Net(work, **layers))


@pytest.mark.parametrize(
    "end",
    [
        [nn.Conv2d(6, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.Conv2d(6, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.Conv2d(6, 5, 1), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        [nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten()],
        [nn.AvgPool2d(2), nn.Conv2d(6, 5, 1)],
        [nn.Conv2d(6, 5, 1), nn.Flatten(2)],
        [nn.Conv2d(6, 6, 1), nn.PixelShuffle(1), nn.Flatten(1, 2), nn.LogSoftmax(-1)],
    ],
)
def test_convolutional_heads(end):
    assert_converts(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), act(), *end))


SMALL = st.integers(1, 3)
CONV = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(SMALL, SMALL),
        "stride": st.tuples(SMALL, SMALL),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "groups": st.sampled_from([1, 2]),
    }
)


@settings(max_examples=60)
@given(st.lists(CONV, min_size=2, max_size=3), st.integers(0, 2), st.booleans())
def test_convolutions_in_a_row_are_one(convs, padding, is_dense):
    shape = (2, 17, 19)
    layers = [nn.Conv2d(2, 2, **how) for how in convs]
    layers[0].padding = (padding, padding)
    try:
        sizes = nn.Sequential(*layers)(torch.zeros(1, *shape))[0]
    except RuntimeError:
        return  # a kernel larger than what is left of the image
    end = [nn.Flatten(), nn.Linear(sizes.numel(), 3)] if is_dense else []
    program, _ = assert_converts(nn.Sequential(*layers, *end), shape)
    assert len(layers_of(program)) == 1


def test_linear_bottlenecks():
    """MobileNetV2: projections without an activation, and sums of them."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU6(),
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.ReLU6(),
                nn.Conv2d(8, 3, 1, bias=False),
                nn.BatchNorm2d(3),
            )

        def forward(self, x):
            return x + self.body(x)

    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model = nn.Sequential(nn.Conv2d(4, 3, 1), Block(), Block(), *head)
    program, notes = assert_converts(model)
    assert [layer.name for layer in layers_of(program)] == [
        "1.body.0",
        "1.body.3",
        "2.body.0",
        "2.body.3",
        "5",
    ]
    assert sum("merged with" in note for note in notes) >= 4


def test_pools_between_linear_layers():
    """DenseNet's transition: convolution, average pool, then BatchNorm and activation."""
    layers = (nn.Conv2d(6, 4, 1), nn.AvgPool2d(2), nn.BatchNorm2d(4), act())
    stem = (nn.Conv2d(4, 6, 3, padding=1), act())
    assert_converts(nn.Sequential(*stem, *layers, nn.Flatten(), nn.Linear(48, 2)))
    three = (nn.Conv2d(6, 4, 3, padding=1), *layers[1:])
    assert_converts(nn.Sequential(*stem, *three, nn.Flatten(), nn.Linear(48, 2)))


def test_different_activations_of_one_network():
    layers = (nn.Conv2d(4, 4, 1), CQReLU(4), nn.Conv2d(4, 4, 1), nn.ReLU6())
    assert_converts(nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 2)))
