"""Training on the spiking network's own errors: `own_errors`, `train(errors="own")`."""

from collections import OrderedDict, namedtuple
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import spikeport
from toolchain.errors import DataError
from toolchain.learning.activations import NQ, QCFS, ActivationMode
from toolchain.learning.data import open_split
from toolchain.learning.evaluation.float_network import spiking_logits
from toolchain.learning.training.config import TrainConfig

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
    """z = 0.4: potentials 0.9, then 1.3 fires, then 0.7; the mean of three steps is 1/3.

    Backward from the last step, with slopes 0.7, 0.7 and 0.9 of the three potentials, and 1/3 less
    what later steps have passed back to each output: 1/3, 0.1 and 0.03.
    """
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.4)
    model = nn.Sequential(layer, QCFS(4, 1.0))
    with spikeport.own_errors(model, STEPS):
        output = model(torch.ones(1, 1))
    assert output.item() == pytest.approx(1 / 3)
    assert model(torch.ones(1, 1)).item() == 0.5
    output.sum().backward()
    third = 0.7 / 3
    second = third + 0.7 * 0.1
    first = second + 0.9 * 0.03
    assert layer.weight.grad.item() == pytest.approx(first + second + third)
    of_outputs = -0.7 * 0.7 / 3 + (1 - 1.3 * 0.7) * 0.1 - 0.9 * 0.9 * 0.03
    assert model[1].threshold.grad.item() == pytest.approx(of_outputs + first / 2, rel=1e-4)


class Step(torch.autograd.Function):
    """1 where a potential, in thresholds, is at least 1; backward a triangle around 1."""

    @staticmethod
    def forward(ctx, ratio):
        ctx.save_for_backward(ratio)
        return (ratio >= 1).to(ratio.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (ratio,) = ctx.saved_tensors
        return gradient * torch.relu(1 - (ratio - 1).abs())


@pytest.mark.parametrize("size", [1000, 1 << 18])
def test_gradients_are_those_of_autograd_through_all_steps(size):
    """Large tensors are computed by compiled code where there is a compiler."""
    torch.manual_seed(0)
    z, weight = 2 * torch.randn(STEPS * size), torch.randn(STEPS * size)
    ours, plain = z.clone().requires_grad_(), z.double().requires_grad_()
    activation, lam = QCFS(4, 1.7), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    activation.mode, activation.num_steps = ActivationMode.SPIKING, STEPS
    (activation(ours) * weight).sum().backward()
    v, outputs = torch.full((size,), 0.5) * lam, []
    for current in plain.chunk(STEPS):
        u = v + current
        outputs.append(lam * Step.apply(u / lam))
        v = u - outputs[-1]
    (torch.cat(outputs) * weight).sum().backward()
    assert (ours.grad - plain.grad).abs().max() < 1e-5
    assert activation.threshold.grad.item() == pytest.approx(lam.grad.item(), rel=1e-4)


@pytest.mark.parametrize("kind", [QCFS, NQ])
def test_the_network_gives_what_its_spikes_give(kind):
    model = block(kind).train()
    if kind is NQ:
        model.fire.sigma.fill_(0.3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.rand(6, 2, 8, 8)
    with spikeport.own_errors(model, STEPS):
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


def test_noise_is_in_the_potentials_that_neurons_begin_with():
    """Gradients of z and lam are those of autograd with the same potentials; T = 2."""
    torch.manual_seed(0)
    z, weight = torch.rand(2, 500), torch.randn(2, 500)
    ours, plain = z.clone().requires_grad_(), z.double().requires_grad_()
    lam = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    activation = QCFS(4, 1.3)
    with spikeport.own_errors(nn.Sequential(activation), 2, noise=0.1):
        torch.manual_seed(5)
        output = activation(ours.reshape(1000))
        with torch.no_grad():
            exact = activation(z.reshape(1000))
        torch.manual_seed(5)
        start = 0.5 + 0.1 * torch.randn(500)
    (output * weight.flatten()).sum().backward()
    v, outputs = start.double() * lam, []
    for current in plain:
        u = v + current
        outputs.append(lam * Step.apply(u / lam))
        v = u - outputs[-1]
    (torch.stack(outputs) * weight).sum().backward()
    assert output.tolist() == pytest.approx(torch.cat(outputs).tolist())
    assert (ours.grad - plain.grad).abs().max() < 1e-5
    assert activation.threshold.grad.item() == pytest.approx(lam.grad.item(), rel=1e-4)
    assert np.abs(exact.numpy() - fire(z.double().numpy(), 1.3).ravel()).max() < 1e-6
    assert not torch.equal(exact, output)


def test_an_activation_of_two_calls_has_neurons_for_each():
    torch.manual_seed(0)
    shared, first, second = QCFS(4, 1.0), nn.Linear(3, 3), nn.Linear(3, 3)
    x = torch.rand(5, 3)
    model = nn.Sequential(first, shared, second, shared)
    with spikeport.own_errors(model, STEPS):
        output = model(x)
    with torch.no_grad():
        a = fire(np.stack([first(x).numpy()] * STEPS), 1.0)
        b = fire(np.stack([second(torch.from_numpy(step).float()).numpy() for step in a]), 1.0)
    assert np.abs(output.detach().numpy() - b.mean(0)).max() < 1e-6
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


Pair = namedtuple("Pair", ("first", "second"))


class Two(nn.Module):
    """A network of two outputs."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.kind = nn.Sequential(nn.Linear(3, 4), QCFS(4, 1.0)), kind

    def forward(self, x):
        y = self.layer(x)
        return self.kind((("first", y), ("second", 2 * y)))


def test_every_output_is_a_mean_whatever_its_form():
    x = torch.rand(5, 3)
    for kind in (dict, OrderedDict, lambda pairs: Pair(*(y for _, y in pairs))):
        model = Two(kind)
        with spikeport.own_errors(model, STEPS):
            found, named = model(x), model(x=x)
        assert type(found) is type(model(x))
        first, second = found if isinstance(found, Pair) else found.values()
        assert torch.equal(first, named.first if isinstance(named, Pair) else named["first"])
        assert first.shape == (5, 4)
        assert torch.equal(second, 2 * first)


def test_a_network_may_return_none_beside_its_outputs():
    model = Two(lambda pairs: (pairs[0][1], None))
    with spikeport.own_errors(model, STEPS):
        found, nothing = model(torch.rand(5, 3))
    assert found.shape == (5, 4)
    assert nothing is None


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (lambda pairs: (pairs[0][1], pairs[1][1].sum()), "a scalar"),
        (lambda pairs: [pairs[0][1].sum().item()], "float"),
        (lambda pairs: SimpleNamespace(**dict(pairs)), "SimpleNamespace"),
    ],
)
def test_an_output_that_is_no_value_of_each_sample_is_refused(kind, found):
    model = Two(kind).train()
    with pytest.raises(DataError, match=found), spikeport.own_errors(model, STEPS):
        model(torch.rand(5, 3))
    assert model.training


def test_a_forward_that_fails_leaves_the_network_as_it_was():
    model = block().train()
    with pytest.raises(RuntimeError), spikeport.own_errors(model, STEPS):
        model(torch.rand(6, 3, 8, 8))
    assert all(m.training for m in model.modules())
    assert model(torch.rand(6, 2, 8, 8)).shape == (6, 5)


def test_what_cannot_be_meant():
    with (
        pytest.raises(DataError, match="at least 1"),
        spikeport.own_errors(block(), 0),
    ):
        pass
    with (
        pytest.raises(DataError, match="noise must be at least 0"),
        spikeport.own_errors(block(), 2, noise=-0.1),
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
            with spikeport.own_errors(model, steps) if steps else nullcontext():
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
        spikes = spiking_logits(tuned, x, [1])[1]
        right[steps] = float((spikes.argmax(1) == y.numpy()).mean())
    assert right[1] > right[0] + 0.08


def test_a_run_takes_noise_for_its_own_errors(tmp_path):
    """The same seed gives other weights with noise, and the same ones twice."""
    weights = []
    for noise in (None, 0.05, 0.05):
        folder = tmp_path / str(len(weights))
        config = TrainConfig("digits", model="mlp", activation="qcfs", errors="own", epochs=1)
        few = replace(config, train_limit=100, learning_rate=0.001, initial_threshold=1.0)
        spikeport.train(replace(few, fixed_noise=noise), folder)
        weights.append(load_file(folder / "model.safetensors"))
    first, second, third = weights
    assert any(not torch.equal(v, first[k]) for k, v in second.items())
    assert all(torch.equal(v, second[k]) for k, v in third.items())


def test_a_run_with_own_errors_keeps_the_statistics(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    config = TrainConfig("digits", model=f"{path}:make", activation="qcfs", epochs=2)
    spikeport.train(config, tmp_path / "first")
    spikeport.train(replace(config, init=str(tmp_path / "first"), errors="own"), tmp_path / "tuned")
    before, after = (load_file(tmp_path / run / "model.safetensors") for run in ("first", "tuned"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {n for n in before if "running" in n or "num_batches" in n}
