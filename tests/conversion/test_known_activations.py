"""Activations of other projects: each against its formula in NumPy, and to the last count."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as ao

from tests.command_line import ROOT
from tests.other_projects import (
    CHANNELS,
    IF,
    QCFS,
    QUANTIZER,
    SHAPE,
    ActQuant,
    ClipQuan,
    MPLayer,
    MyFloor,
    Off,
    QuantIdentity,
    SpikeZIPQuantizer,
    assert_every_count_agrees,
    brevitas_relu,
    changed,
    converted,
    fake_quantize,
    fast_snn_relu,
    fixed,
    network,
    per_channel,
    with_activation,
)
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.conversion.frontend.known_activations import ANY_CLASS, KNOWN
from toolchain.conversion.frontend.known_layers import KNOWN_LAYERS
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import FloatProgram, Input
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

FAR = 3.0
"""Inputs reach this many thresholds beyond both ends of the range."""


def by_floor(x, lam, levels):
    return lam * np.clip(np.floor(x / lam * levels + 0.5) / levels, 0, 1)


def by_clip_and_floor(x, lam, levels):
    return lam * np.floor(np.clip(x / lam, 0, 1) * levels + 0.5) / levels


def by_round(x, scale, high):
    return scale * np.clip(np.rint(x / scale), 0, high)


CASES = {
    "IF": (IF, lambda x: by_clip_and_floor(x, 1.5, 4), 4),
    "QCFS of COS and SRP": (QCFS, lambda x: by_floor(x, 1.5, 4), 4),
    "MyFloor": (MyFloor, lambda x: by_floor(x, 1.5, 4), 4),
    "NQ": (MPLayer, lambda x: by_clip_and_floor(x, 1.5, 4), 4),
    "CASC": (ClipQuan, lambda x: np.floor(np.clip(x, 0, 1) * 4) / 4, 4),
    "SpikingJelly": (SpikeZIPQuantizer, lambda x: 0.25 * np.clip(np.floor(x * 4 + 0.5), 0, 5), 5),
    "brevitas, power of two": (
        lambda: brevitas_relu(0.25, 3),
        lambda x: by_round(np.maximum(x, 0), 0.25, 7),
        7,
    ),
    "brevitas, real scale": (
        lambda: brevitas_relu(0.3712, 2),
        lambda x: by_round(np.maximum(x, 0), np.float32(0.3712), 3),
        3,
    ),
    "brevitas, per channel": (
        lambda: brevitas_relu(CHANNELS, 2),
        lambda x: by_round(np.maximum(x, 0), CHANNELS, 3),
        3,
    ),
    "brevitas, narrow": (
        lambda: brevitas_relu(0.25, 3, narrow=True),
        lambda x: by_round(np.maximum(x, 0), 0.25, 6),
        6,
    ),
    "brevitas, signed behind its ReLU": (
        lambda: brevitas_relu(0.25, 3, signed=True),
        lambda x: by_round(np.maximum(x, 0), 0.25, 3),
        3,
    ),
    "brevitas QuantIdentity": (lambda: QuantIdentity(0.25, 3), lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize": (fake_quantize, lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize, zero point at its lower end": (
        lambda: fake_quantize(0.25, 3, 3, 8),
        lambda x: 0.25 * (np.clip(np.rint(x / 0.25 + 3), 3, 8) - 3),
        5,
    ),
    "FixedQParamsFakeQuantize": (fixed, lambda x: by_round(x, 0.25, 7), 7),
    "FakeQuantize, per channel": (
        lambda: per_channel(1),
        lambda x: by_round(x, np.float32(CHANNELS), 7),
        7,
    ),
    "Fast-SNN": (
        lambda: fast_snn_relu(3),
        lambda x: 1.75 * np.rint(np.clip(np.maximum(x, 0) / 1.75, 0, 1) * 7) / 7,
        7,
    ),
}


def is_near_a_tie(x, lam, levels, shift):
    steps = x / lam * levels + shift
    return np.abs(steps - np.rint(steps)) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_formulas(name):
    make, formula, levels = CASES[name]
    spec = find_adapter(make())(make())  # type: ignore[misc]
    lam = spec.threshold_array().reshape(1, -1, 1, 1)
    assert spec.levels == levels
    x = np.random.default_rng(0).uniform(-FAR, 1 + FAR, (500, 4, 1, 1)) * lam
    described = lam * np.clip(np.floor(x / lam * levels + spec.shift), 0, levels) / levels
    apart = ~is_near_a_tie(x, lam, levels, spec.shift)
    assert apart.mean() > 0.9
    assert np.allclose(described[apart], formula(x)[apart], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_every_count_of_a_network(name, limits):
    make, _, levels = CASES[name]
    acts = [("0", 1, levels), ("2", 3, levels)]
    assert_every_count_agrees(network(make), limits, acts, levels)


class Neuron(nn.Module):
    """What COS and SRP put in place of QCFS: pre-simulation, then spikes."""

    v_threshold, presim_len, t, neuron = 1.0, 4, 0, None

    def forward(self, x):
        return torch.floor(x)


def named(name, **attributes):
    return changed(type(name, (Neuron,), {})(), **attributes)


APOT = torch.tensor([0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0])
REFUSED = {
    "spiking QCFS": (lambda: changed(IF(), T=4), "spiking form", "T = 4"),
    "noisy QCFS of NQ": (lambda: changed(QCFS(), sigma=0.1), "adds noise", "sigma = 0.1"),
    "spiking NQ": (lambda: changed(MPLayer(), snn_mode=True), "spiking form", "snn_mode = True"),
    "MPLayer of COS": (lambda: named("MPLayer"), "spiking form", "MPLayer"),
    "IFNeuron": (lambda: named("IFNeuron"), "spiking form", "IFNeuron"),
    "CASC beyond 1": (lambda: changed(ClipQuan(), max=2.0), "another interval", r"0\.0 \.\. 2\.0"),
    "brevitas without quantizer": (
        lambda: changed(brevitas_relu(0.25, 3), act_quant=Off()),
        "switched off",
        "act_quant",
    ),
    "brevitas with input_quant": (
        lambda: changed(brevitas_relu(0.25, 3), input_quant=ActQuant(0.25, 3)),
        "quantizes its input too",
        "input_quant",
    ),
    "brevitas, rounded down": (
        lambda: brevitas_relu(0.25, 3, rounding=torch.floor),
        "not rounded to the nearest",
        "0 for 0.1875, where even levels give 0.25",
    ),
    "brevitas, 32 bits": (lambda: brevitas_relu(0.25, 32), "more levels", "4294967295"),
    "brevitas QuantIdentity, signed": (
        lambda: QuantIdentity(0.25, 3, signed=True),
        "also encodes negative values",
        "behind a ReLU",
    ),
    "observer on": (
        lambda: changed(fake_quantize(), observer_enabled=torch.ones(1, dtype=torch.uint8)),
        "observer of the fake-quantizer is on",
        "observer_enabled = 1",
    ),
    "fake-quantizer off": (
        lambda: changed(fake_quantize(), fake_quant_enabled=torch.zeros(1, dtype=torch.uint8)),
        "switched off",
        "fake_quant_enabled = 0",
    ),
    "FakeQuantize along the rows": (lambda: per_channel(2), "another axis", "ch_axis = 2"),
    "FakeQuantize with a zero point inside": (
        lambda: fake_quantize(0.25, 2, 0, 7),
        "also encodes negative values",
        "behind a ReLU",
    ),
    "FakeQuantize without zero": (
        lambda: fake_quantize(0.25, 0, 2, 7),
        "zero point that no spike count has",
        r"zero point 0 in 2 \.\. 7",
    ),
    "Fast-SNN, sums of powers of two": (
        lambda: fast_snn_relu(grid=APOT),
        "not evenly spaced",
        "power=False",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_why(name, limits):
    make, why, detail = REFUSED[name]
    with pytest.raises(UnsupportedModuleError, match=rf"(?s)^1: .*{why}.*{detail}"):
        converted(with_activation(make()), limits)


@pytest.mark.parametrize(
    "make", [lambda: fake_quantize(0.25, 2, 0, 7), lambda: QuantIdentity(0.25, 4, signed=True)]
)
def test_signed_quantizers_behind_a_relu(make, limits):
    """Their negative values do not occur there: levels 1 to high - zero point stay."""
    act = make()
    model = network(lambda: nn.Sequential(nn.ReLU(), make()))
    levels = find_adapter(act)(act).levels  # type: ignore[misc]
    assert levels == (5 if isinstance(act, ao.FakeQuantize) else 7)
    conversion = convert(
        model, QUANTIZER, ConversionOptions("cif", Schedule(levels, 40)), limits, name="s"
    )
    inputs = np.random.default_rng(1).integers(0, 256, (12, *SHAPE))
    recording = simulate(conversion.program, inputs)
    z = model.double()[:2](torch.from_numpy(inputs * QUANTIZER.scale)).detach().numpy()
    expected = np.clip(np.rint(np.maximum(z, 0) * 4), 0, levels)
    assert np.array_equal(recording.counts["0"], expected)


def test_nq_is_left_as_it_was(limits):
    model = network(MPLayer)
    before = [dict(vars(model[i])) for i in (1, 3)]
    converted(model, limits)
    assert [dict(vars(model[i])) for i in (1, 3)] == before
    assert model[1].gaps_var == []
    assert model[1].train_mode


def test_the_page_lists_what_is_known():
    page = (ROOT / "docs/QUICKSTART.md").read_text()
    section = page.partition("## Activations of other projects")[2].partition("\n## ")[0]
    listed = {
        (name, attributes)
        for name, attributes in re.findall(r"^\| .* \| `(.+?)` \| `(.+?)` \|", section, re.M)
    }
    known = {(name, ", ".join(attributes)) for name, attributes, _ in KNOWN}
    known |= {(name, ", ".join(attributes)) for name, attributes in KNOWN_LAYERS}
    assert listed == {("any" if name == ANY_CLASS else name, a) for name, a in known}


def test_ties_round_up():
    """Where the module rounds half to even: 1/2 goes to 0 there and to 1 here, 3/2 to 2 in both."""
    act, scale = brevitas_relu(0.25, 3), 0.25
    program = trace(with_activation(act), SHAPE)
    ties = torch.tensor([0.5, 1.5, 2.5]) * scale
    node = replace(program.node("1"), sources=("input",))
    described = evaluate(FloatProgram((Input("input", (), (3,)), node), ("1",)), ties[None])
    assert (described / scale).tolist() == [[1.0, 2.0, 3.0]]
    assert (act(ties) / scale).tolist() == [0.0, 2.0, 2.0]
