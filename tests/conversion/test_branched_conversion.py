"""Branched networks whose weights are exactly representable: integers equal the trained network.

All weights are multiples of 127 * 2^-k per row at most, thresholds powers of two, so the right
integers exist and every float64 sum is exact. Expected values come from torch itself, from the
closed form of settled CIF, or from a float loop over time steps written here.
"""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exports.netx import read_net, write_net
from tests.branched_modules import NETWORKS
from tests.oracles import closed_form
from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter
from toolchain.conversion.passes.layers import IntegerLayer, layers_of
from toolchain.conversion.pipeline import ConversionOptions, lower, prepare
from toolchain.learning.activations import QuantizedActivation
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import LIPool
from toolchain.simulator.reference import simulate

SHAPE = (2, 8, 8)
SCALE = 1 / 16
LEVELS = 4
THETA = 256
ON_INPUT = {
    "resnet": {"conv1"},
    "norm-behind-add": {"stem"},
    "pre-activation": {"stem"},
    "dense": {"stem"},
    "inception": {"stem"},
    "inception-average": {"stem"},
    "spp": {"stem"},
    "max-pools": {"features.0"},
    "uneven-pools": {"a", "b"},
    "pooled-concat": {"a", "b", "c"},
    "shared-pool": {"stem"},
    "vectors": {"layers.0", "skip"},
}
"""Layers that take the input, whose spikes are worth SCALE; all others are worth 1."""
LAM = {
    ("norm-behind-add", "stem"): (SCALE, 0.5),
    ("norm-behind-add", "conv"): (0.5, 2.0),
    ("norm-behind-add", "head"): (2.0, 1.0),
}
"""Input spike value and threshold behind a layer, where not 1."""


def exact_network(name, seed=0):
    """The network with random weights of 127 / THETA thresholds per spike and row at most."""
    rng = np.random.default_rng(seed)
    model = NETWORKS[name]().double().eval()
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            lam_in, lam = LAM.get((name, path), (SCALE if path in ON_INPUT[name] else 1.0, 1.0))
            weight = rng.integers(-127, 128, tuple(module.weight.shape)).astype(float)
            weight.reshape(len(weight), -1)[:, 0] = rng.choice([-127, 127], len(weight))
            # Sparse, so that activations do not all clip.
            weight *= rng.random(weight.shape) < 0.5
            weight.reshape(len(weight), -1)[:, 0] = rng.choice([-127, 127], len(weight))
            module.weight.data = torch.from_numpy(weight * lam / (THETA * lam_in))
            if module.bias is not None:
                bias = rng.integers(-64, 65, len(weight)) * lam / THETA
                module.bias.data = torch.from_numpy(bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            channels = module.num_features
            module.running_var.fill_(4.0)
            module.weight.data.fill_(float(rng.choice([1.0, 2.0, 4.0])))
            module.running_mean.copy_(torch.from_numpy(rng.integers(-8, 9, channels) / 32))
            module.bias.data = torch.from_numpy(rng.integers(-8, 9, channels) / 32)
    if name.startswith("inception"):
        model.b[3].threshold.data.fill_(1.0)
    return model


def converted(model, limits, neuron, sleep=0, pooling="auto"):
    """The conversion, and the folded network that it comes from."""
    quantizer = InputQuantizer(SHAPE, SCALE, 4)
    options = ConversionOptions(neuron, Schedule(LEVELS, sleep), pooling=pooling)
    prepared = prepare(model, quantizer, options, limits)
    return lower(prepared, name="exact"), prepared.folded


def outputs_of_activations(model, inputs):
    """Outputs by call, named as a program names them ("#2" for the second call), and logits."""
    calls: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, path=path: calls.setdefault(path, []).append(out)
        )
        for path, module in model.named_modules()
        if isinstance(module, QuantizedActivation)
    ]
    with torch.no_grad():
        logits = model(inputs)
    for hook in hooks:
        hook.remove()
    named = {
        path + (f"#{i + 1}" if i else ""): out
        for path, outs in calls.items()
        for i, out in enumerate(outs)
    }
    return named, logits


def in_shape(program, name, shape):
    """Population `name`, or the max pool behind it that has this shape."""
    while program.population(name).shape != shape:
        (name,) = [
            p.name
            for p in program.populations
            if isinstance(p.neuron, LIPool) and p.synapses[0].source == name
        ]
    return name


def expected_counts(program, folded, outputs):
    """Spike counts by population from the activations' outputs: `L * a / lam`."""
    start: dict[str, int] = {}
    counts = {}
    for layer in layers_of(folded):
        if not isinstance(layer, IntegerLayer) or layer.activation is None:
            continue
        path = re.sub(r"\[.*", "", layer.activation.name)
        whole = outputs[path].numpy() / layer.activation.threshold[0] * LEVELS
        first = start.get(path, 0)
        start[path] = first + layer.shape[0]
        share = whole[:, first : start[path]]
        name = in_shape(program, layer.name, share.shape[1:])
        assert np.array_equal(share, np.rint(share))
        counts[name] = share
    return counts


@pytest.mark.parametrize("pooling", ["auto", "stage"])
@pytest.mark.parametrize("name", ON_INPUT)
def test_settled_cif_counts_are_the_network(name, pooling, limits):
    model = exact_network(name)
    conversion, folded = converted(model, limits, "cif", 60, pooling)
    program = conversion.program
    assert [r for r in conversion.rounding if max(r.weight_error, r.bias_error) > 1e-15] == []
    assert conversion.notes == ()
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 16, (6, *SHAPE)).astype(np.int32)
    recording = simulate(program, inputs)
    assert sum(recording.meta["unsettled"].values()) == 0
    outputs, logits = outputs_of_activations(model, torch.from_numpy(inputs * SCALE))
    expected = expected_counts(program, folded, outputs)
    assert expected
    for layer, counts in expected.items():
        assert np.array_equal(recording.counts[layer], counts), layer
        assert 0 < counts.mean() < LEVELS, layer
    scale = program.readout.neuron.scale
    assert np.array_equal(recording.logits * scale / LEVELS, logits.numpy())
    for index, sample in enumerate(inputs[:1]):
        settled, readout = closed_form.counts_and_logits(program, sample)
        assert np.array_equal(recording.logits[index], readout)
        for layer, counts in recording.counts.items():
            assert np.array_equal(counts[index], settled[layer]), layer


# ---- a float loop over time steps


class Stateful(nn.Module):
    """A module with one state per call within a step; `begin` starts the next step."""

    def __init__(self):
        super().__init__()
        self.states: list[torch.Tensor | None] = []
        self.calls = 0
        self.sent: list[list[torch.Tensor]] = []

    def begin(self):
        self.calls = 0

    def forward(self, x):
        if self.calls == len(self.states):
            self.states.append(None)
            self.sent.append([])
        self.states[self.calls], out = self.step(self.states[self.calls], x)
        self.sent[self.calls].append(out)
        self.calls += 1
        return out


class FloatIF(Stateful):
    """v += z; s = v >= lam; v -= lam s; sends lam s. Starts at shift * lam."""

    def __init__(self, threshold, shift):
        super().__init__()
        self.threshold, self.shift = threshold, shift

    def step(self, v, z):
        v = (torch.full_like(z, self.shift * self.threshold) if v is None else v) + z
        spikes = (v >= self.threshold).double() * self.threshold
        return v - spikes, spikes


class FloatMaxCount(Stateful):
    """Sends the change of the maximum over the window of what has arrived so far."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def step(self, state, x):
        total, largest = state if state is not None else (torch.zeros_like(x), 0.0)
        total = total + x
        now = self.pool(total)
        return (total, now), now - largest


def spiking_copy(model):
    """The float network with stateful neurons and pools in the place of its own."""
    model = copy.deepcopy(model)
    for path, module in list(model.named_modules()):
        parent = model.get_submodule(path.rpartition(".")[0])
        if isinstance(module, QuantizedActivation):
            setattr(parent, path.rpartition(".")[2], FloatIF(module.threshold.item(), module.shift))
        elif isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            setattr(parent, path.rpartition(".")[2], FloatMaxCount(module))
    return model


@pytest.mark.parametrize("pooling", ["auto", "stage"])
@pytest.mark.parametrize(
    "name",
    [
        "resnet",
        "norm-behind-add",
        "dense",
        "inception",
        "inception-average",
        "spp",
        "shared-pool",
        "vectors",
    ],
)
def test_if_spikes_are_those_of_a_float_loop(name, pooling, limits):
    model = exact_network(name, seed=3)
    conversion, folded = converted(model, limits, "if", pooling=pooling)
    program = conversion.program
    rng = np.random.default_rng(2)
    inputs = rng.integers(0, 16, (4, *SHAPE)).astype(np.int32)
    recording = simulate(program, inputs)
    floats = spiking_copy(model)
    logits = torch.zeros(())
    with torch.no_grad():
        for _ in range(LEVELS):
            for module in floats.modules():
                if isinstance(module, Stateful):
                    module.begin()
            logits = logits + floats(torch.from_numpy(inputs * SCALE))
    start: dict[str, int] = {}
    compared = 0
    for layer in layers_of(folded):
        if not isinstance(layer, IntegerLayer) or layer.activation is None:
            continue
        path = re.sub(r"[#\[].*", "", layer.activation.name)
        module = floats.get_submodule(path)
        spikes = torch.stack(module.sent[0]).numpy() / module.threshold
        first = start.get(path, 0)
        start[path] = first + layer.shape[0]
        assert np.array_equal(recording.spikes[layer.name], spikes[:, :, first : start[path]]), (
            layer.name
        )
        compared += 1
    assert compared >= 2
    scale = program.readout.neuron.scale
    assert np.array_equal(recording.logits * scale, logits.numpy())


# ---- pools


def test_folded_and_staged_pools_have_the_same_integers(limits):
    """Windows that tile: weights and thresholds are equal, so every count and logit is."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        NETWORKS["resnet"]().act1,
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1),
        NETWORKS["resnet"]().act1,
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    for neuron, sleep in (("if", 0), ("cif", 40)):
        folded = converted(model, limits, neuron, sleep, "fold")[0].program
        staged = converted(model, limits, neuron, sleep, "stage")[0].program
        assert [p.name for p in staged.populations] == ["0", "2", "3", "5", "7"]
        assert [p.neuron.kind for p in staged.populations][1::2] == ["RELAY", "RELAY"]
        small, large = (p.population("3") for p in (staged, folded))
        assert small.neuron.threshold.tolist() == large.neuron.threshold.tolist()
        upsampled = np.kron(small.synapses[0].weight, np.ones((2, 2), int))
        assert np.array_equal(large.synapses[0].weight, upsampled)
        assert folded.readout.neuron.scale == staged.readout.neuron.scale
        inputs = np.random.default_rng(0).integers(0, 16, (5, *SHAPE)).astype(np.int32)
        a, b = simulate(folded, inputs), simulate(staged, inputs)
        for layer in ("0", "3"):
            assert np.array_equal(a.spikes[layer], b.spikes[layer])
        assert np.array_equal(a.logits, b.logits)


def test_a_relay_is_worth_its_mean(limits):
    """Counts of a relay over k^2 are the average pool of its source's counts."""
    model = exact_network("shared-pool")
    program = converted(model, limits, "cif", 40, "stage")[0].program
    inputs = np.random.default_rng(0).integers(0, 16, (3, *SHAPE)).astype(np.int32)
    counts = simulate(program, inputs).counts
    expected = F.avg_pool2d(torch.from_numpy(counts["stem"]).double(), 2).numpy()
    assert np.array_equal(counts["pool"] / 4, expected)


@pytest.mark.parametrize("name", ["dense", "spp", "norm-behind-add"])
def test_branched_networks_survive_a_file(name, limits, tmp_path):
    """Names of split layers, exponents, pools and stages read back as they were written."""
    program = converted(exact_network(name), limits, "cif", 8, "stage")[0].program
    write_net(program, tmp_path / "x.net")
    assert read_net(tmp_path / "x.net").hash == program.hash


class PerChannel(nn.Module):
    """A quantized activation with one threshold per channel."""

    def __init__(self, *thresholds):
        super().__init__()
        self.lams = torch.tensor(thresholds, dtype=torch.float64)

    def forward(self, x):
        lam = self.lams.reshape(1, -1, 1, 1)
        return torch.floor((x / lam).clamp(0, 1) * LEVELS + 0.5) / LEVELS * lam


@activation_adapter("PerChannel", attributes=("lams",))
def per_channel(module):
    return ActivationSpec(module.lams, LEVELS, 0.5)


class PerChannelNet(nn.Module):
    """Thresholds per channel through an identity, a max pool, a sum pool and a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(2, 2, 1), PerChannel(0.5, 2.0)
        self.conv, self.two = nn.Conv2d(2, 2, 1), PerChannel(4.0, 1.0)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.mix, self.three = nn.Conv2d(4, 2, 1), PerChannel(1.0, 3.0)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        x = self.one(self.stem(x))
        x = self.two(self.conv(x) + x)
        x = self.three(self.mix(torch.cat([self.pool(x), self.mean(x)], 1)))
        return self.head(x.flatten(1))


def test_thresholds_per_channel_reach_every_kind_of_branch(limits):
    """`W_int 2^e = round(theta W lam_in / lam)`, lam_in followed by hand to each synapse."""
    torch.manual_seed(0)
    model = PerChannelNet().double()
    program = converted(model, limits, "if", pooling="stage")[0].program
    one, two, three = np.array([0.5, 2.0]), np.array([4.0, 1.0]), np.array([1.0, 3.0])
    theta = program.population("add").neuron.threshold
    convolution, *skips = program.population("add").synapses
    skip = sum(s.weight[:, 0, 0, 0].astype(int) << s.weight_exponent for s in skips)
    assert (np.abs(skip - theta * one / two) <= np.maximum(skip / 256, 0.5)).all()
    exact = theta[:, None] * model.conv.weight.detach().numpy()[:, :, 0, 0] * one / two[:, None]
    scaled = convolution.weight[:, :, 0, 0].astype(int) << convolution.weight_exponent
    assert (np.abs(scaled - exact) <= 2.0**convolution.weight_exponent / 2 + 1e-9).all()
    theta = program.population("mix").neuron.threshold[:, None]
    weight = model.mix.weight.detach().numpy()[:, :, 0, 0]
    for source, columns, lam_in in (("pool", slice(0, 2), two), ("mean", slice(2, 4), two / 4)):
        exact = theta * weight[:, columns] * lam_in / three[:, None]
        (synapse,) = [s for s in program.population("mix").synapses if s.source == source]
        scaled = synapse.weight[:, :, 0, 0].astype(int) << synapse.weight_exponent
        assert (np.abs(scaled - exact) <= 2.0**synapse.weight_exponent / 2 + 1e-9).all()
