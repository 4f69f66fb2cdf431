"""Training on the spiking network's own errors: `own_errors`, `train(errors="own")`."""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import spikeport
from toolchain.errors import DataError, TrainingError
from toolchain.learning.activations import NQ, QCFS, ActivationMode
from toolchain.learning.data import open_split
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import logits

STEPS = 3
NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
"""


class Block(nn.Module):
    """A residual block between convolutions with BatchNorm, and dropout in front of the head."""

    def __init__(self, kind):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), kind(4, 0.9), nn.AvgPool2d(2)
        )
        self.branch, self.fire = nn.Conv2d(4, 4, 3, padding=1), kind(4, 1.3)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(64, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.drop(self.fire(self.branch(x) + x).flatten(1)))


def block(kind=QCFS):
    torch.manual_seed(0)
    model = Block(kind)
    model.stem[1].running_mean += 0.1
    model.stem[1].running_var *= 0.5
    return model


def fire(currents, lam):
    """IF neurons in numpy: reset by subtraction, start at half the threshold; (T, ...) outputs."""
    v, outputs = np.full_like(currents[0], lam / 2), []
    for current in currents:
        v = v + current
        spikes = v >= lam
        v = v - lam * spikes
        outputs.append(lam * spikes)
    return np.stack(outputs)


def test_one_neuron_by_hand():
    """z = 0.4: potentials 0.9, then 1.3 fires, then 0.7; the mean of three steps is 1/3."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.4)
    model = nn.Sequential(layer, QCFS(4, 1.0))
    with spikeport.own_errors(model, torch.ones(1, 1), STEPS):
        output = model(torch.ones(1, 1))
    assert output.item() == pytest.approx(1 / 3)
    assert model(torch.ones(1, 1)).item() == 0.5
    output.sum().backward()
    # QCFS at z = 0.4: to z the gradient passes; to lam it is a / lam - z / lam = 0.5 - 0.4.
    assert layer.weight.grad.item() == 1
    assert model[1].threshold.grad.item() == pytest.approx(0.1)


@pytest.mark.parametrize("kind", [QCFS, NQ])
def test_the_network_gives_what_its_spikes_give(kind):
    model = block(kind).train()
    if kind is NQ:
        model.fire.sigma.fill_(0.3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.rand(6, 2, 8, 8)
    with spikeport.own_errors(model, x, STEPS):
        output = model(x)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    def plain(layer, values):
        """A layer in evaluation on (T, n, ...), without activations."""
        with torch.no_grad():
            flat = layer(torch.from_numpy(values).float().flatten(0, 1))
        return flat.reshape(STEPS, -1, *flat.shape[1:]).double().numpy()

    model.eval()
    first = fire(plain(model.stem[:2], np.stack([x.double().numpy()] * STEPS)), 0.9)
    pooled = plain(model.stem[3], first)
    second = fire(plain(model.branch, pooled) + pooled, 1.3)
    expected = plain(model.head, second.reshape(STEPS, 6, -1)).mean(0)
    assert np.abs(output.detach().numpy() - expected).max() < 1e-5
    assert np.abs(output.detach().numpy() - model(x).detach().numpy()).max() > 1e-2
    output.sum().backward()
    assert model.stem[0].weight.grad.abs().max() > 0


def test_an_activation_of_two_calls_is_refused():
    shared = QCFS(4, 1.0)
    model = nn.Sequential(nn.Linear(3, 3), shared, nn.Linear(3, 3), shared)
    with (
        pytest.raises(TrainingError, match="called several times"),
        spikeport.own_errors(model, torch.ones(1, 3), STEPS),
    ):
        model(torch.ones(1, 3))
    assert not shared._forward_hooks


def test_what_cannot_be_meant():
    with (
        pytest.raises(DataError, match="at least 1"),
        spikeport.own_errors(block(), torch.ones(1, 2, 8, 8), 0),
    ):
        pass
    with pytest.raises(DataError, match="IF neurons"):
        TrainConfig("digits", activation="cqrelu", errors="own")
    with pytest.raises(DataError, match="no such errors"):
        TrainConfig("digits", errors="mine")


@pytest.fixture(scope="module")
def deep():
    """A deep network trained as QCFS on the digits, and its training samples."""
    torch.manual_seed(0)
    data = open_split("digits@train")
    x, y = torch.from_numpy(data.real()).float().flatten(1), torch.from_numpy(data.labels)
    layers: list[nn.Module] = [nn.Linear(64, 32)]
    for _ in range(4):
        layers += [QCFS(4, 2.0), nn.Linear(32, 32)]
    model = nn.Sequential(*layers, QCFS(4, 2.0), nn.Linear(32, 10))
    descend(model, x, y, 0, 30)
    return model, x, y


def descend(model, x, y, steps, epochs):
    """Train in place; with `steps`, on the errors of as many steps."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            with spikeport.own_errors(model, x[rows], steps) if steps else nullcontext():
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_training_on_own_errors_lowers_them(deep):
    model, x, y = deep
    right = {}
    for steps in (0, 1):
        tuned = deepcopy(model)
        torch.manual_seed(1)
        descend(tuned, x, y, steps, 10)
        spikes = logits(tuned, x, ActivationMode.SPIKING, 1)
        right[steps] = float((spikes.argmax(1) == y).float().mean())
    assert right[1] > right[0] + 0.08


def test_a_run_with_own_errors_keeps_the_statistics(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    config = TrainConfig("digits", model=f"{path}:make", activation="qcfs", epochs=2)
    spikeport.train(config, tmp_path / "first")
    spikeport.train(replace(config, init=str(tmp_path / "first"), errors="own"), tmp_path / "tuned")
    before, after = (load_file(tmp_path / run / "model.safetensors") for run in ("first", "tuned"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {n for n in before if "running" in n or "num_batches" in n}
