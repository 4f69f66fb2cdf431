"""Torch modules with branches, pools and shared values, small enough for plain oracles."""

import torch
from torch import nn
from torch.nn import functional as F

from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.conversion.passes.layers import layers_of
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.float_program import AvgPool2d, BatchNorm

SHAPE = (2, 8, 8)


def act(levels=4, threshold=1.0):
    return QCFS(levels, threshold)


class Block(nn.Module):
    """The residual block of He et al., with its addition as an operator."""

    def __init__(self, c_in, c_out, stride=1, activation=act):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )
        self.act2 = activation()

    def forward(self, x):
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.act2(out)


class ResNet(nn.Module):
    def __init__(self, activation=act):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.act1 = activation()
        self.layer1 = nn.Sequential(Block(3, 3, activation=activation))
        self.layer2 = nn.Sequential(
            Block(3, 4, 2, activation=activation), Block(4, 4, activation=activation)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.pool(x), 1))


class NormBehindAdd(nn.Module):
    """BatchNorm behind the addition, with an average-pooled shortcut and a ReLU in front."""

    def __init__(self):
        super().__init__()
        self.stem, self.act0 = nn.Conv2d(2, 4, 3, padding=1), act(threshold=0.5)
        self.conv = nn.Conv2d(4, 4, 2, stride=2)
        self.norm, self.relu, self.act1 = nn.BatchNorm2d(4), nn.ReLU(), act(threshold=2.0)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        x = self.act0(self.stem(x))
        x = torch.add(self.conv(x), F.avg_pool2d(x, 2))
        return self.head(self.act1(self.relu(self.norm(x))).flatten(1))


class PreActivation(nn.Module):
    """The stream between the blocks carries sums, not spikes; every block normalises it anew."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
        self.acts = nn.ModuleList(act() for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        for i in range(2):
            x = x + self.convs[i](self.acts[i](self.norms[i](x)))
        return self.head(self.acts[2](self.norms[2](x)).mean((2, 3)))


class DenseBlocks(nn.Module):
    """Features are concatenated, as in DenseNet, and read by grouped and dense layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 2, 3, padding=1)
        self.two = nn.Conv2d(6, 3, 3, padding=1, groups=3)
        self.spanning = nn.Conv2d(9, 3, 1, groups=3)
        self.acts = nn.ModuleList(act() for _ in range(4))
        self.head = nn.Linear((9 + 3) * 16, 3)

    def forward(self, x):
        x = self.acts[0](self.stem(x))
        x = torch.cat([x, self.acts[1](self.one(x))], 1)
        x = torch.cat((x, self.acts[2](self.two(x))), dim=-3)
        x = F.avg_pool2d(x, 2)
        y = self.acts[3](self.spanning(x))
        return self.head(torch.cat([x.flatten(1), torch.flatten(y, 1)], -1))


class PreActivationDense(nn.Module):
    """BatchNorm and activation behind a concatenation of spikes and sums."""

    def __init__(self):
        super().__init__()
        self.stem, self.act0 = nn.Conv2d(2, 2, 1), act()
        self.one, self.two = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.norm, self.act1 = nn.BatchNorm2d(7), act(threshold=1.5)
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        x = self.act0(self.stem(x))
        x = torch.concat([self.one(x), x, self.two(x)], 1)
        return self.head(torch.mean(self.act1(self.norm(x)), (-2, -1), keepdim=True).flatten(1))


class Inception(nn.Module):
    """Branches of unequal depth, one of them a pool, concatenated."""

    def __init__(self, pool=None):
        super().__init__()
        self.stem, self.act0 = nn.Conv2d(2, 3, 3, padding=1), act()
        self.a = nn.Sequential(nn.Conv2d(3, 2, 1), act())
        self.b = nn.Sequential(
            nn.Conv2d(3, 2, 1), act(), nn.Conv2d(2, 3, 3, padding=1), act(threshold=0.5)
        )
        self.c = nn.Sequential(pool or nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 2, 1), act())
        self.next, self.act1 = nn.Conv2d(7, 4, 3, 2, 1), act()
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        x = self.act0(self.stem(x))
        x = torch.cat([self.a(x), self.b(x), self.c(x)], 1)
        return self.head(self.act1(self.next(x)).flatten(1))


class SPP(nn.Module):
    """Repeated max pools and their source, concatenated, as in YOLO's SPP block."""

    def __init__(self):
        super().__init__()
        self.stem, self.act0 = nn.Conv2d(2, 2, 3, padding=1), act()
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.mix, self.act1 = nn.Conv2d(8, 3, 1), act()
        self.last = nn.AdaptiveMaxPool2d(1)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.act0(self.stem(x))
        one = self.pool(x)
        two = self.pool(one)
        x = torch.concatenate([x, one, two, self.pool(two)], axis=1)  # type: ignore[call-arg]
        return self.head(self.last(self.act1(self.mix(x))).flatten(1))


class MaxPools(nn.Module):
    """Max pools behind and in front of activations, with BatchNorm on either side."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.MaxPool2d(2),
            act(),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.MaxPool2d(3, 2, 1),
            nn.MaxPool2d(1),
            nn.BatchNorm2d(4),
            CQReLU(4),
            nn.MaxPool2d(2, dilation=1),
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(F.adaptive_max_pool2d(self.features(x), 1).flatten(1))


class UnevenPools(nn.Module):
    """Max pools whose padding differs between two sides, behind one another and a concatenation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.acts = nn.ModuleList(act() for _ in range(4))
        self.ceil = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.mix = nn.Conv2d(5, 4, 3, padding=1)
        self.early = nn.MaxPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.ceil(torch.cat([self.acts[0](self.a(x)), self.acts[1](self.b(x))], 1))
        x = F.max_pool2d(F.pad(x, (0, 1, 1, 0)), 2, 1)
        x = self.acts[2](self.early(self.mix(x)))
        x = F.max_pool2d(F.pad(x, (1, 0, 0, 1)), (3, 2), (1, 2), (1, 0), ceil_mode=True)
        return self.head(x.flatten(1))


class PooledConcat(nn.Module):
    """Pools and additions of concatenations."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(2, c, 3, padding=1) for c in (2, 3, 5))
        self.acts = nn.ModuleList(act() for _ in range(4))
        self.mix = nn.Conv2d(5, 3, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        a, b = self.acts[0](self.a(x)), self.acts[1](self.b(x))
        y = self.acts[2](self.c(x) + torch.cat([a, b], 1))
        z = torch.cat([b, a], 1) + y
        z = self.acts[3](z)
        z = F.max_pool2d(torch.cat([z], 1), 2)
        return self.head(F.avg_pool2d(self.acts[3](self.mix(z)), 2).flatten(1))


class SharedPool(nn.Module):
    """One average pool read by two convolutions and a dense layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.act0 = nn.Conv2d(2, 3, 3, padding=1), act()
        self.pool = nn.AvgPool2d(2)
        self.a, self.b = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 2, 1)
        self.act1 = act()
        self.left, self.right = nn.Linear(32, 3), nn.Linear(48, 3)

    def forward(self, x):
        x = self.pool(self.act0(self.stem(x)))
        return self.left(self.act1(self.a(x) + self.b(x)).flatten(1)) + self.right(x.flatten(1))


class Vectors(nn.Module):
    """Residual and concatenation of feature vectors, and a sum over a list."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in ((128, 6), (6, 6), (12, 5), (5, 3)))
        self.acts = nn.ModuleList(act() for _ in range(3))
        self.skip = nn.Linear(128, 3)

    def forward(self, x):
        x = x.flatten(1)
        y = self.acts[0](self.layers[0](x))
        z = self.acts[1](sum([self.layers[1](y), y, y]))
        w = self.acts[2](self.layers[2](torch.cat([z, y], -1)))
        return self.layers[3](w).add_(self.skip(x))


NETWORKS = {
    "resnet": ResNet,
    "norm-behind-add": NormBehindAdd,
    "pre-activation": PreActivation,
    "dense": DenseBlocks,
    "pre-activation-dense": PreActivationDense,
    "inception": Inception,
    "inception-average": lambda: Inception(nn.AvgPool2d(3, 1, 1)),
    "spp": SPP,
    "max-pools": MaxPools,
    "uneven-pools": UnevenPools,
    "pooled-concat": PooledConcat,
    "shared-pool": SharedPool,
    "vectors": Vectors,
}


def randomise(model, seed=0):
    """Random BatchNorm statistics and affine parameters, so that folding them matters."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def wrap(module):
    """A module two levels deep, so that its path is worth naming."""
    return nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 1), module))


def assert_program_is(model, shape=SHAPE, *, fold=True):
    """The traced and folded program computes what the module computes, in float64."""
    model = randomise(model).double()
    samples = torch.randn(5, *shape, dtype=torch.float64)
    program = trace(model, shape)
    programs = [program]
    if fold:
        programs.append(place_average_pools(fold_batch_norm(program), "fold")[0])
        assert not any(isinstance(n, BatchNorm | AvgPool2d) for n in programs[1].nodes)
        layers_of(programs[1])
    with torch.no_grad():
        expected = model(samples)
    for each in programs:
        found = evaluate(each, samples)
        assert torch.allclose(found, expected, atol=1e-9), each
    return programs[-1]
