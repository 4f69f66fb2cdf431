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


class UNet(nn.Module):
    """U-Net: two steps down, two up, each of which is concatenated with what came down."""

    def __init__(self, up):
        super().__init__()

        def double(inputs, outputs):
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                act(),
                nn.Conv2d(outputs, outputs, 3, padding=1),
                act(),
            )

        self.down = nn.ModuleList([double(4, 2), double(2, 4)])
        self.low = double(4, 8)
        self.up = nn.ModuleList([up(8, 4), up(4, 2)])
        self.joined = nn.ModuleList([double(8, 4), double(4, 2)])
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        skips = []
        for down in self.down:
            skips.append(down(x))
            x = self.pool(skips[-1])
        x = self.low(x)
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([skips.pop(), up(x)], 1))
        return self.out(x)


def transposed(inputs, outputs):
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


def nearest(inputs, outputs):
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), conv, act())


class OddSizes(nn.Module):
    """An upsampling to the size of a skip, which crops it: a stage that repeats spikes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 4, 2), act())
        pool = nn.MaxPool2d(2, ceil_mode=True)
        self.low = nn.Sequential(pool, nn.Conv2d(4, 4, 3, padding=1), act())
        self.joined, self.act = nn.Conv2d(8, 4, 3, padding=1), act()

    def forward(self, x):
        skip = self.first(x)
        x = F.interpolate(self.low(skip), size=skip.shape[2:])
        return self.act(self.joined(torch.cat([x, skip], 1)))


class YoloTiny(nn.Module):
    """YOLOv3-tiny: a pool of stride 1, two heads, the second on an upsampled branch and a skip."""

    def __init__(self):
        super().__init__()

        def conv(inputs, outputs, kernel):
            layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())

        self.first, self.second, self.third = conv(4, 4, 3), conv(4, 6, 3), conv(6, 4, 1)
        self.pool = nn.MaxPool2d(2)
        self.same = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
        self.large = nn.Sequential(conv(4, 8, 3), nn.Conv2d(8, 6, 1))
        self.branch = nn.Sequential(conv(4, 2, 1), nn.Upsample(scale_factor=2))
        self.small = nn.Sequential(conv(8, 4, 3), nn.Conv2d(4, 6, 1))

    def forward(self, x):
        skip = self.second(self.pool(self.first(x)))
        x = self.third(self.same(self.pool(skip)))
        small = self.small(torch.cat([self.branch(x), skip], 1))
        return self.large(x), small


def dense(features):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 3), nn.Softmax(1)]


NETWORKS = {
    "linear bottlenecks": lambda: [Bottleneck(), Bottleneck(), *dense(4)],
    "channel shuffles": lambda: [Shuffled(), Shuffled(), *dense(4)],
    "dense block": lambda: [Transition(), *dense(4)],
    "option A": lambda: [PaddedShortcut(), *dense(8)],
    "convolutional head": lambda: [Fire()],
    "U-Net, transposed": lambda: [UNet(transposed)],
    "U-Net, nearest": lambda: [UNet(nearest)],
    "odd sizes": lambda: [OddSizes(), *dense(4)],
    "YOLOv3-tiny": lambda: [YoloTiny()],
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
    several = wanted if isinstance(wanted, tuple) else (wanted,)
    for found, of_module in zip(reference.outputs.values(), several, strict=True):
        same = found.reshape(of_module.shape).argmax(1) == of_module.argmax(1).numpy()
        assert same.mean() > 0.8
    few = samples[:2].numpy()
    expected = spikeport.run(path, few)
    for models in ("fast", "fixed_pt"):
        found = spikeport.run(path, few, backend="lava", models=models)
        assert spikeport.compare(expected, found).equal
