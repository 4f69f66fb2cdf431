"""`spikeport.quantize`: ReLUs of any form become activations, each call its own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spikeport
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import ActivationMode, QuantizedActivation, activation_mode
from toolchain.learning.data import open_split

MANY = 1 << 20
"""Levels that are as good as none."""


class Modules(nn.Module):
    """Module ReLUs: one in a Sequential at two places, and one called twice in a forward."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), relu, nn.Conv2d(4, 4, 3), relu)
        self.inner, self.outer = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4 * 36, 10)

    def forward(self, x):
        x = self.stem(x)
        out = self.outer(self.relu(self.inner(x)))
        return self.head(self.relu(out + x).flatten(1))


class Functions(nn.Module):
    """Functional forms, with dropout by the module's mode and the batch read from the shape."""

    def __init__(self):
        super().__init__()
        self.conv = nn.ModuleList(
            nn.Conv2d(c, 4, 3, padding=1, groups=1) for c in (1, 4, 4, 4, 4, 4)
        )
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        x = F.relu(self.conv[0](x), inplace=True)
        x = torch.relu(self.conv[1](x))
        x = self.conv[2](x).relu()
        x = self.conv[3](x).clamp(min=0)
        x = F.relu6(self.conv[4](x))
        x = F.dropout(x, 0.5, training=self.training)
        x = torch.relu_(self.conv[5](x))
        return self.head(x.view(x.size(0), -1))


class Clipped(nn.Module):
    """Modules that clip, beside a module of the user's that has functions."""

    def __init__(self):
        super().__init__()
        self.body = Functions()
        self.body.head = nn.Linear(256, 32)
        self.six, self.two = nn.ReLU6(), nn.Hardtanh(0, 2)
        self.first, self.last = nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, x):
        return self.last(self.two(self.first(self.six(self.body(x)))))


NETWORKS = {"modules": (Modules, 4), "functions": (Functions, 6), "clipped": (Clipped, 8)}


def network(name):
    torch.manual_seed(3)
    kind, calls = NETWORKS[name]
    model = kind()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)  # some values reach the bounds
    return model, calls


@pytest.fixture(scope="module")
def digits():
    return open_split("digits", "train").take(slice(0, 200))


def samples_of(digits):
    return torch.from_numpy(digits.real()).float()


def activations_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantizedActivation)}


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("kind", ["nq", "qcfs"])
def test_with_many_levels_it_is_the_relu_network(name, kind, digits):
    model, calls = network(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    quantized = spikeport.quantize(model, kind, MANY, calibrate=digits, percentile=100)
    x = samples_of(digits)
    with torch.no_grad():
        expected, found = model.eval()(x), quantized.eval()(x)
    assert len(activations_of(quantized)) == calls
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not activations_of(model)
    kept = {k: v for k, v in quantized.state_dict().items() if k in before}
    assert kept.keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in kept.items())


def maxima(model, x):
    """Largest output of each ReLU call of the float network in order, by patched functions."""
    found = []

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func.__name__ in ("relu", "relu_", "relu6", "clamp", "hardtanh"):
                found.append(out.detach().flatten().numpy().copy())
            return out

    with torch.no_grad(), Seen():
        model.eval()(x)
    return found


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("percentile", [100, 99.9, 90])
def test_thresholds_are_percentiles_of_the_relus_outputs(name, percentile, digits):
    model, _ = network(name)
    quantized = spikeport.quantize(model, calibrate=digits, percentile=percentile)
    values = maxima(model, samples_of(digits))
    expected = [np.percentile(v, percentile, method="higher") or v.max() for v in values]
    found = [a.threshold.item() for a in activations_of(quantized).values()]
    assert sorted(found) == pytest.approx(sorted(expected), rel=1e-5)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_it_converts_and_counts_are_those_of_the_network(name, digits):
    model, calls = network(name)
    quantized = spikeport.quantize(model, "qcfs", 4, calibrate=digits)
    conversion = spikeport.convert(quantized, calibrate=digits, steps=64)
    assert len(conversion.program.spiking) >= calls
    recording = spikeport.run(conversion, digits)
    x = samples_of(digits)
    with torch.no_grad(), activation_mode(quantized.eval(), ActivationMode.CLIPPED):
        clipped = quantized(x).argmax(1).numpy()
    assert (recording.predictions == clipped).mean() > 0.9


def test_dropout_follows_the_mode(digits):
    quantized = spikeport.quantize(network("functions")[0], calibrate=digits)
    x = samples_of(digits)
    quantized.eval()
    assert torch.equal(quantized(x), quantized(x))
    quantized.train()
    assert not torch.equal(quantized(x), quantized(x))


def test_without_samples_thresholds_start_at_eight():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    quantized = spikeport.quantize(model, input_shape=3)
    assert [a.threshold.item() for a in activations_of(quantized).values()] == [8.0]
    cqrelu = spikeport.quantize(model, "cqrelu", 8, input_shape=3)
    assert [a.threshold.item() for a in activations_of(cqrelu).values()] == [1.0]


def test_cqrelu_starts_at_the_outputs_and_settles_to_them_exactly():
    """A ReLU network whose values reach 20 keeps its classes, as CIF with integer weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 5))
    x = rng.uniform(0, 1, (400, 6)).astype(np.float32)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight *= 20
    expected = model(torch.from_numpy(x)).argmax(1).numpy()
    quantized = spikeport.quantize(model, "cqrelu", 64, calibrate=x)
    (activation,) = activations_of(quantized).values()
    outputs = model[:2](torch.from_numpy(x)).detach().numpy()
    assert np.percentile(outputs, 99) < activation.threshold.item() <= outputs.max()
    network = spikeport.convert(quantized, calibrate=x, neuron="cif")
    recording = spikeport.run(network, x)
    # Against the closed form of the paper, in float, and the classes of the ReLU network.
    lam = activation.threshold.item()
    levels = np.floor(64 * np.clip(model[0](torch.from_numpy(x)).detach().numpy() / lam, 0, 1))
    logits = model[2](torch.from_numpy((levels * lam / 64).astype(np.float32)))
    assert (recording.predictions == logits.argmax(1).numpy()).mean() > 0.97
    assert (recording.predictions == expected).mean() > 0.95


def test_a_relu_at_the_end_stays():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
    x = np.random.default_rng(0).random((50, 3))
    quantized = spikeport.quantize(model, calibrate=x)
    assert list(activations_of(quantized)) == ["1"]
    notes = spikeport.convert(quantized, calibrate=x).notes
    assert any("left out" in note for note in notes)


def test_activations_that_are_there_stay(digits):
    mixed = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 8), spikeport.CQReLU(4), nn.Linear(8, 8), nn.ReLU()),
        nn.Linear(8, 4),
    )
    quantized = spikeport.quantize(mixed, "qcfs", 4, calibrate=digits)
    kinds = [m.kind for m in activations_of(quantized).values()]
    assert kinds == ["cqrelu", "qcfs"]
    with pytest.raises(UnsupportedModuleError, match="no ReLU"):
        spikeport.quantize(quantized, calibrate=digits)


def test_large_layers_convert():
    """Those from which on activations are compiled, which torch.fx cannot trace."""
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(64))
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(64, 2))
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    quantized = spikeport.quantize(model, "qcfs", 4, calibrate=x)
    assert spikeport.check(quantized, input_shape=(1, 64, 64)).obstacles == ()


class ReadAgain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.first(x.flatten(1))
        return self.last(self.relu(x) + x)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.first(x.flatten(1)))
        return -x if x.sum() > 0 else x


class Dead(nn.Module):
    def forward(self, x):
        return F.relu(-1 - x.flatten(1)[:, :10]) + 1


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("no such thing")


class Hooked(Modules):
    def __init__(self):
        super().__init__()
        self.register_forward_pre_hook(lambda module, args: None)


WRONG = {
    "hooks": (Hooked, {}, "hooks or parametrizations"),
    "no levels": (Modules, {"levels": 0}, "levels must be at least 1"),
    "in place": (ReadAgain, {}, "inplace=False"),
    "branch": (Branch, {}, "cannot be rewritten"),
    "dead": (Dead, {}, "never positive"),
    "fails": (Fails, {}, "no such thing"),
    "no relu": (nn.Flatten, {}, "no ReLU"),
    "no activation": (Modules, {"activation": "gelu"}, "no such activation"),
    "no percentile": (Modules, {"percentile": 0}, "percentile"),
    "no samples": (Modules, {"calibrate": None}, "samples are needed"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_one_clear_error(case, digits):
    kind, options, told = WRONG[case]
    with pytest.raises((UnsupportedModuleError, DataError), match=told):
        spikeport.quantize(kind(), **{"calibrate": digits, **options})


def noise_of(weights, thresholds, samples, levels, steps):
    """Deviation of each layer's residual error of a chain of dense layers, neuron by neuron."""
    ann, spikes = samples, np.repeat(samples[None], steps, axis=0)
    found = []
    for (weight, bias), lam in zip(weights, thresholds, strict=True):
        z = ann @ weight.T + bias
        ann = lam * np.floor(np.clip(z / lam, 0, 1) * levels + 0.5) / levels
        v, out = np.full_like(z, lam / 2), np.zeros((steps, *z.shape), z.dtype)
        for step in range(steps):
            v = v + spikes[step] @ weight.T + bias
            out[step] = np.where(v >= lam, lam, 0)
            v = v - out[step]
        spikes = out
        found.append((ann - spikes.mean(0)).std())
    return found


@pytest.mark.parametrize("form", ["tensors", "pairs"])
def test_noise_of_a_loop_of_ones_own(form, digits):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)
    )
    quantized = spikeport.quantize(model, "nq", 4, calibrate=digits).train()
    quantized[1].eval()
    before = {k: v.clone() for k, v in quantized.state_dict().items()}
    x = samples_of(digits)
    batches = list(x.split(100))
    loader = batches if form == "tensors" else [(b, torch.zeros(len(b))) for b in batches]
    found = spikeport.calibrate_noise(quantized, loader, 6)
    after = quantized.state_dict()
    weights = [(quantized[i].weight, quantized[i].bias) for i in (1, 3)]
    weights = [tuple(t.detach().double().numpy() for t in pair) for pair in weights]
    lams = [quantized[i].threshold.item() for i in (2, 4)]
    by_batch = [noise_of(weights, lams, b.flatten(1).double().numpy(), 4, 6) for b in batches]
    expected = np.sqrt(np.mean(np.square(by_batch), axis=0))
    assert list(found.values()) == pytest.approx(list(expected), rel=1e-3)
    assert [after["2.sigma"].item(), after["4.sigma"].item()] == list(found.values())
    assert min(found.values()) > 0
    same = [k for k in after if not k.endswith("sigma")]
    assert all(torch.equal(after[k], before[k]) for k in same)
    assert (quantized.training, quantized[1].training) == (True, False)


def test_noise_where_there_is_none(digits):
    qcfs = spikeport.quantize(network("modules")[0], "qcfs", calibrate=digits)
    with pytest.raises(UnsupportedModuleError, match="no NQ activation"):
        spikeport.calibrate_noise(qcfs, [samples_of(digits)], 4)
    nq = spikeport.quantize(network("modules")[0], calibrate=digits)
    with pytest.raises(DataError, match="no samples"):
        spikeport.calibrate_noise(nq, [], 4)
    with pytest.raises(DataError, match="at least 1"):
        spikeport.calibrate_noise(nq, [samples_of(digits)], 0)
    with pytest.raises(UnsupportedModuleError, match="forward fails"):
        spikeport.calibrate_noise(nq, [torch.ones(2, 3)], 4)
