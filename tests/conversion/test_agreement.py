"""On how many calibration samples the integer network has the class of the trained network."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from spikeport import agreement


class Net(nn.Module):
    def __init__(self, activation, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(1, 6, 3), activation
        self.head = nn.Linear(96, outputs)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).flatten(1))


def samples(count=60):
    return np.random.default_rng(0).random((count, 1, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_it_is_what_torch_and_a_run_say(steps):
    model, given = Net(nn.ReLU()).eval(), samples()
    made = spikeport.convert(
        model, calibrate=given, steps=steps, relu_percentile=99.0, input_range=(0, 1)
    )
    with torch.no_grad():
        # The samples as the integer network gets them, in 8 bits.
        expected = model(torch.tensor(np.rint(given * 255) / 255)).argmax(1).numpy()
    found = spikeport.run(made, given).logits.argmax(1)
    assert made.agreement.total == len(given)
    assert made.agreement.correct == (found == expected).sum()
    lost = any("accuracy is lost" in note for note in made.notes)
    assert lost == (made.agreement.fraction < 0.9)
    assert lost == (steps == 1)


def test_a_loss_free_conversion_agrees_everywhere():
    made = spikeport.convert(Net(spikeport.CQReLU(4)).eval(), neuron="cif", calibrate=samples())
    assert made.agreement.correct == made.agreement.total == 60


def test_where_there_is_no_class_nothing_is_said(monkeypatch):
    one = Net(spikeport.QCFS(4), outputs=1).eval()
    assert spikeport.convert(one, calibrate=samples()).agreement is None
    two = Net(spikeport.QCFS(4)).eval()
    assert spikeport.convert(two, input_shape=(1, 6, 6)).agreement is None
    # 864 + 288 multiply-adds a sample.
    monkeypatch.setattr(agreement, "MOST_OPERATIONS", 12 * 1152 + 1000)
    assert spikeport.convert(two, calibrate=samples()).agreement.total == 12
    monkeypatch.setattr(agreement, "MOST_OPERATIONS", 9 * 1152)
    assert spikeport.convert(two, calibrate=samples()).agreement.total == 10


def test_a_watched_range_that_does_not_hold_is_told():
    """With ranges watched, conversion goes on where runs will not."""
    model = Net(nn.ReLU()).eval()
    with torch.no_grad():
        model.head.weight.mul_(3e3)  # beside the bias, which stays
        model.conv.bias[0] = -40.0  # this channel's potential only falls
    made = spikeport.convert(
        model,
        calibrate=samples(),
        steps=60_000,
        relu_percentile=100.0,
        watch_ranges=True,
        input_range=(0, 1),
    )
    assert made.agreement is None
    assert any("runs end with an error" in note and "left its range" in note for note in made.notes)
    with pytest.raises(spikeport.SpikeportError, match="left its range"):
        spikeport.run(made, samples(2))


def test_a_network_that_multiplies_nothing():
    """Its only kernel sees the padding around one pixel."""
    only = nn.Sequential(nn.Conv2d(1, 2, 2, padding=1, dilation=2)).eval()
    made = spikeport.convert(only, calibrate=np.ones((20, 1, 1, 1), np.float32), input_range=(0, 1))
    assert made.agreement is None
