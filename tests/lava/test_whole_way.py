"""Blocks of published networks all the way: module, integers, file, lint, reference, Lava.

Counts of settled CIF neurons are held against the module's own quantized forward.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spikeport
from toolchain.learning.activations import CQReLU

SHAPE, LEVELS = (2, 8, 8), 3


def act():
    return CQReLU(LEVELS)


class Bottleneck(nn.Module):
    """MobileNetV2: depthwise, and a projection without an activation."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 1),
            act(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            act(),
            nn.Conv2d(8, 4, 1, bias=False),
        )

    def forward(self, x):
        return x + self.body(x)


class Shuffled(nn.Module):
    """ShuffleNet: half of the channels pass, grouped convolutions, channels interleaved."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2), act(), nn.Conv2d(4, 2, 1)
        )
        self.act = act()

    def forward(self, x):
        first, second = x.chunk(2, 1)
        x = torch.cat([first, self.act(self.branch(second))], 1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Transition(nn.Module):
    """DenseNet: concatenation, normalised and activated, a convolution, an average pool."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 2, 3, padding=1), nn.BatchNorm2d(6), act()
        self.down = nn.Sequential(nn.Conv2d(6, 4, 1), nn.AvgPool2d(2), nn.BatchNorm2d(4), act())

    def forward(self, x):
        return self.down(self.act(self.norm(torch.cat([x, self.conv(x)], 1))))


class PaddedShortcut(nn.Module):
    """ResNet: a shortcut without weights, every second pixel, with channels of zeros."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 8, 3, 2, 1), act()

    def forward(self, x):
        return self.act(self.conv(x) + F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 2, 2)))


class Fire(nn.Module):
    """SqueezeNet: squeeze, expand by two branches; the pool is the last layer."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.act = nn.Conv2d(4, 2, 1), act()
        self.one, self.three = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x):
        x = self.act(self.squeeze(x))
        x = torch.cat([self.act(self.one(x)), self.act(self.three(x))], 1)
        return x.mean((2, 3)) * 4 - 0.5


def dense(features):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 3), nn.Softmax(1)]


NETWORKS = {
    "linear bottlenecks": lambda: [Bottleneck(), Bottleneck(), *dense(4)],
    "channel shuffles": lambda: [Shuffled(), Shuffled(), *dense(4)],
    "dense block": lambda: [Transition(), *dense(4)],
    "option A": lambda: [PaddedShortcut(), *dense(8)],
    "convolutional head": lambda: [Fire()],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_the_way(name, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), act(), *NETWORKS[name]())
    samples = torch.randint(0, 256, (12, *SHAPE)).float() / 255
    with torch.no_grad():
        model.train()(samples)  # statistics of BatchNorm
        wanted = model.eval()(samples)
    conversion = spikeport.convert(
        model, input_shape=SHAPE, neuron="cif", steps=LEVELS, sleep_steps=24
    )
    path = tmp_path / "net.net"
    spikeport.save(conversion, path)
    assert {f.rule_id for f in spikeport.lint(path).found} <= {"strange-name"}  # parts: x[0]
    reference = spikeport.run(path, samples.numpy())
    (outputs,) = reference.outputs.values()
    outputs = outputs.reshape(len(samples), -1)
    assert (outputs.argmax(1) == wanted.argmax(1).numpy()).mean() > 0.8
    few = samples[:2].numpy()
    expected = spikeport.run(path, few)
    for models in ("fast", "fixed_pt"):
        found = spikeport.run(path, few, backend="lava", models=models)
        assert spikeport.compare(expected, found).equal
