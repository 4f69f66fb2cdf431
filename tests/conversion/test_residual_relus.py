"""Residual networks with plain ReLUs whose channels differ by orders of magnitude."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from tests.branched_modules import Block
from tests.comparing import assert_same


class Net(nn.Module):
    """torchvision's ResNet, small: max pool, identities, strided shortcuts, mean at the end."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        sizes = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1)]
        self.blocks = nn.Sequential(*(Block(*size, activation=nn.ReLU) for size in sizes))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.blocks(self.pool(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


def with_spread_gains(seed):
    """Gains of BatchNorm from 0.1 to 10, statistics of the samples, and (samples, 3, 12, 12)."""
    torch.manual_seed(seed)
    net = Net()
    x = torch.nn.functional.interpolate(torch.rand(200, 3, 4, 4), size=12, mode="bilinear")
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
            with torch.no_grad():
                norm.weight.copy_(10 ** (2 * torch.rand(len(norm.weight)) - 1))
                norm.bias.copy_(norm.weight * torch.randn(len(norm.weight)) / 2)
    net.train()(x)
    return net.eval(), x


def in_float(conversion, x):
    """Outputs of the integer network in the network's own unit."""
    found = spikeport.run(conversion, x.numpy(), record="counts")
    program = conversion.program
    return found.logits * program.readout.neuron.scale / program.schedule.wake_steps


@pytest.mark.parametrize(("neuron", "least"), [("if", 0.9), ("cif", 0.95)])
def test_it_follows_torch(neuron, least):
    """Correlation of the outputs with those of the module itself, on other samples."""
    net, x = with_spread_gains(0)
    expected = net(x[100:]).detach().numpy()
    made = spikeport.convert(net, calibrate=x[:100], neuron=neuron, steps=32)
    outputs = in_float(made, x[100:])
    centred = [(v - v.mean(0)).ravel() for v in (outputs, expected)]
    assert np.corrcoef(*centred)[0, 1] > least
    assert (outputs.argmax(1) == expected.argmax(1)).mean() > least - 0.1


def test_it_is_exact_in_integers():
    net, x = with_spread_gains(1)
    program = spikeport.convert(net, calibrate=x[:50], steps=4, relu_percentile=99.9).program
    assert_same(program, (x[:4].numpy() * 255).round().astype(np.int64))


def test_an_identity_of_a_channel_that_hardly_fires_may_vanish():
    """A channel of 1e-6 in the source of a residual sum: the note says what it is worth."""
    net, x = with_spread_gains(2)
    with torch.no_grad():
        net.bn1.weight[3] = 1e-6
        net.bn1.bias[3] = 0.0
    made = spikeport.convert(net, calibrate=x[:100], steps=8, relu_percentile=99.9)
    (note,) = (n for n in made.notes if "identity" in n)
    assert note.startswith("blocks.0.add: the identity from pool became 0 in 1 channels")
    thresholds = made.program.origin("relu_thresholds", dict)
    worth = thresholds["conv1"][3] / thresholds["blocks.0.add"][3]
    assert note.endswith(f"worth at most {worth:.1g} thresholds")
    identity = made.program.population("blocks.0.add").synapses[-1]
    assert not identity.weight[3].any()
    assert identity.weight[:3].any((1, 2, 3)).all()
