"""Thresholds, initial potentials and weights that are fitted where ReLUs are plain."""

from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spikeport
from tests.comparing import assert_lossless, assert_same
from toolchain.audit.source_network import SourceNetwork
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.pipeline import ConversionOptions, prepare
from toolchain.conversion.quantization import calibration, relu_fit
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.conversion.quantization.percentile import with_thresholds
from toolchain.conversion.quantization.relu_fit import Timing, fit_relus, outputs_of
from toolchain.conversion.quantization.spike_values import with_largest_spike
from toolchain.errors import ConversionError
from toolchain.program.float_program import Activation
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SHAPE = (1, 6, 6)
STEPS = 5


class Net(nn.Module):
    """A residual sum, a max pool, a bounded ReLU and channels of very different size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.third, self.head = nn.Linear(36, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight *= torch.tensor([1.0, 20.0, 0.1, 3.0])[:, None, None, None]

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.max_pool2d(F.relu(self.second(x) + x), 2)
        return self.head(F.relu6(self.third(x.flatten(1))))


def plain():
    return fold(trace(Net().eval(), SHAPE, plain_relu=True))[0]


def samples(count=40, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((count, *SHAPE)))


def activations(program):
    return [n for n in program.nodes if isinstance(n, Activation)]


def fire(currents, lam, start, most=1):
    """IF neurons written out: spikes times threshold per step, for a list of currents.

    Up to `most` of a step are one.
    """
    lam = torch.from_numpy(lam).reshape(-1, *([1] * (currents[0].ndim - 2)))
    v = torch.zeros_like(currents[0]) + lam * start
    sent = []
    for current in currents:
        v = v + current
        sent.append(sum((v >= k * lam) * lam for k in range(1, most + 1)))
        v = v - sent[-1]
    return sent


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("per_step", [False, True])
def test_the_simulation_is_the_equation_written_out(per_step, most):
    net, x = Net().double().eval(), samples()
    share = torch.linspace(0.2, 1.8, STEPS, dtype=torch.float64) if per_step else torch.ones(STEPS)
    given = [x * s for s in share]  # their mean is x
    program = with_thresholds(plain(), [x], len(x), percentile=95.0, levels=STEPS)
    program = with_largest_spike(program, most)
    one, two, three = (a.threshold / most for a in activations(program))
    with torch.no_grad():
        a = fire([net.first(now) for now in given], one, 0.5, most)
        b = fire([net.second(s) + s for s in a], two, 0.5, most)
        counts = [sum(b[: t + 1]) for t in range(STEPS)]
        largest = [0.0, *(F.max_pool2d(c, 2) for c in counts)]
        pooled = [after - before for before, after in pairwise(largest)]
        c = fire([net.third(s.flatten(1)) for s in pooled], three, 0.5, most)
        expected = sum(net.head(s) for s in c) / STEPS
    frames = torch.stack(given) if per_step else x[None]
    found = outputs_of(program, frames, Timing(STEPS, settled=False))
    assert torch.allclose(found, expected, atol=1e-9)
    assert torch.allclose(outputs_of(plain(), frames, None), net(x).detach(), atol=1e-9)


def test_thresholds_and_shifts_have_the_smallest_error_of_all_candidates():
    net, x = Net().double().eval(), samples()
    program = fit_relus(plain(), x[None], Timing(STEPS, settled=False), weights=False)
    first = activations(program)[0]
    with torch.no_grad():
        z = net.first(x)
    rows = F.relu(z).transpose(0, 1).flatten(1).numpy()
    peaks = z.abs().transpose(0, 1).flatten(1).amax(1).numpy()
    errors = {}
    for percentile in relu_fit.PERCENTILES:
        lam = np.percentile(rows, percentile, axis=1, method="nearest")
        lam = np.maximum(lam, peaks / 64)
        for shift in relu_fit.SHIFTS:
            sent = sum(fire([z] * STEPS, lam, shift)) / STEPS
            per_channel = (sent - F.relu(z)).square().transpose(0, 1).flatten(1).mean(1)
            errors[percentile, shift] = per_channel.numpy()
    lam = torch.from_numpy(first.threshold).reshape(1, -1, 1, 1)
    chosen = sum(fire([z] * STEPS, first.threshold, torch.from_numpy(first.shift)[:, None, None]))
    error = (chosen / STEPS - F.relu(z)).square().transpose(0, 1).flatten(1).mean(1).numpy()
    assert error == pytest.approx(np.min(list(errors.values()), axis=0))
    assert len({(float(a), float(b)) for a, b in zip(lam.flatten(), first.shift, strict=True)}) > 2
    assert (activations(program)[2].threshold <= 6).all()


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(("rows", "inputs"), [(200, 5), (40, 60)])
def test_weights_are_the_ridge_regression(rows, inputs, settled):
    """Held against the same problem as ordinary least squares with rows added for the ridge."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, inputs), nn.ReLU(), nn.Linear(inputs, 3)).double().eval()
    x = torch.randn(rows, 6, dtype=torch.float64)
    program = fold(trace(net, (6,), plain_relu=True))[0]
    timing = Timing(2, settled=settled)
    fitted = fit_relus(program, x[None], timing, weights=True)
    assert np.array_equal(fitted.node("0").weight, program.node("0").weight)
    with torch.no_grad():
        z, a = net[0](x), net[1](net[0](x)).numpy()
    (act,) = activations(fitted)
    lam, shift = torch.from_numpy(act.threshold), torch.from_numpy(act.shift)
    if settled:
        s = ((z / lam * 2 + shift).floor().clamp(0, 2) * lam / 2).numpy()
    else:
        s = (sum(fire([z, z], act.threshold, shift)) / 2).numpy()
    weight = net[2].weight.detach().numpy()
    centred = s - s.mean(0)
    ridge = relu_fit.RIDGE * (1 + relu_fit.RIDGE_PER_INPUT * inputs / rows)
    extra = np.diag(np.sqrt(ridge * (centred**2).sum(0)))
    target = (a - a.mean(0)) @ weight.T
    given, wanted = np.vstack([centred, extra]), np.vstack([target, extra @ weight.T])
    expected = np.linalg.lstsq(given, wanted, rcond=None)[0].T
    assert fitted.node("2").weight == pytest.approx(expected, rel=1e-6)
    means = a.mean(0) @ weight.T + net[2].bias.detach().numpy()
    found = outputs_of(fitted, x[None], timing).mean(0).numpy()
    assert found == pytest.approx(means, rel=1e-6)  # the bias takes the mean error


def converted(**how):
    how = {"steps": STEPS, "calibrate": samples(80).float(), "input_range": (0, 1), **how}
    return spikeport.convert(Net().eval(), **how)


def prepared(limits, **how):
    quantizer = InputQuantizer(SHAPE, 1 / 255)
    inputs = quantizer.quantize(samples(80).numpy())
    options = ConversionOptions("if", Schedule(STEPS), **how)
    return prepare(Net().eval(), quantizer, options, limits, calibration=Calibration("", inputs))


def test_the_note_says_what_each_form_gains_and_the_best_is_taken():
    made = converted()
    (note,) = (n for n in made.notes if n.startswith("plain ReLUs"))
    told = {name: float(note.split(f" with {name}")[0].split()[-1]) for name in NAMES}
    best = min(told, key=told.get)
    assert note.startswith(f"plain ReLUs: {best};")
    assert told[best] < told["percentile 99.9"]


NAMES = ("percentile 99.9", "fitted thresholds", "fitted weights too")


def test_each_part_can_be_switched_off(limits):
    kept = converted(fit_weights=False)
    for fits, same in ((False, True), (True, False)):
        fitted = prepared(limits, fit_weights=fits).folded
        weights = {n.name: n.weight for n in plain().nodes if hasattr(n, "weight")}
        assert same == all(np.array_equal(fitted.node(n).weight, w) for n, w in weights.items())
    usual = converted(relu_percentile=99.0)
    assert not any(note.startswith("plain ReLUs") for note in usual.notes)
    assert set(chain(*usual.program.origin("relu_shifts", dict).values())) == {0.5}
    ways = [c.program.origin("integers", dict)["rounding"] for c in (converted(), kept, usual)]
    assert ways == ["gptq", "gptq", "nearest"]
    nearest = converted(rounding="nearest").program
    assert nearest.origin("integers", dict)["rounding"] == "nearest"


def test_rounding_without_room_for_moments_is_told(monkeypatch):
    """Two layers have 36 inputs and a bias, one less than would fit; asked for, gptq is refused."""
    monkeypatch.setattr(calibration, "MOST_BYTES", 8 * 37**2 - 1)
    made = converted()
    assert made.program.origin("integers", dict)["rounding"] == "nearest"
    (note,) = (n for n in made.notes if "gptq" in n)
    assert note.endswith("too many inputs for gptq with so many samples, in add, third")
    with pytest.raises(ConversionError, match=r"^add: this layer has too many inputs"):
        converted(rounding="gptq")


@pytest.mark.parametrize("neuron", ["if", "cif"])
def test_it_is_exact_in_integers(neuron):
    """Stepwise and fast simulation agree; a settled CIF has the counts of the closed form."""
    sleep = 60 if neuron == "cif" else None
    program = converted(neuron=neuron, sleep_steps=sleep).program
    inputs = (samples(20, seed=1).numpy() * 255).round().astype(np.int64)
    assert_same(program, inputs)
    if neuron == "cif":
        assert_lossless(program, inputs, simulate(program, inputs))
    neurons = (p.neuron for p in program.spiking if hasattr(p.neuron, "threshold"))
    starts = {round(float(s), 2) for n in neurons for s in n.initial_potential / n.threshold}
    assert len(starts) > 1


def test_an_audit_has_the_fitted_thresholds_and_shifts():
    made = converted(fit_weights=False)
    found = SourceNetwork.of(made.program, Net().eval())
    values = {layer.name: layer for layer in found.layers if getattr(layer, "activation", None)}
    assert len(values) == 3
    for population in made.program.spiking:
        if population.name in values:
            activation, neuron = values[population.name].activation, population.neuron
            start = np.floor(neuron.threshold * activation.shift)
            assert np.array_equal(neuron.initial_potential, start)


def test_a_relu_whose_outputs_are_all_0_is_named():
    net = Net().eval()
    nn.init.constant_(net.third.weight, -1.0)
    nn.init.constant_(net.third.bias, -1.0)
    with pytest.raises(ConversionError, match=r"relu6: this ReLU is dead"):
        spikeport.convert(net, calibrate=samples(80).float(), input_range=(0, 1))
