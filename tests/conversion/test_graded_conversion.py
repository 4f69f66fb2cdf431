"""Conversion to graded IF neurons: thresholds, spikes and their values, and what refuses them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from hw_models.profile import load_profile
from tests.branched_modules import ResNet
from tests.command_line import here
from toolchain.errors import ConversionError, TargetError
from toolchain.learning.activations import ActivationMode, activation_mode
from toolchain.program.neurons import GradedIntegrateAndFire, IntegrateAndFire


def one_layer():
    """Whole numbers throughout: no rounding, whatever the threshold."""
    net = nn.Sequential(nn.Linear(3, 2), spikeport.QCFS(levels=4, threshold=8.0), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [-1.0, 1.0, 2.0]]))
        net[0].bias.copy_(torch.tensor([1.0, -1.0]))
        net[2].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
        net[2].bias.zero_()
    return net.eval()


@pytest.mark.parametrize(("steps", "most"), [(1, 4), (2, 2), (2, 4), (3, 3)])
def test_a_layer_of_whole_numbers_by_its_equation(steps, most):
    """The neuron in real values: threshold lam / K, start at half of it, K spikes at most."""
    x = np.array(np.meshgrid(*[range(5)] * 3)).reshape(3, -1).T.astype(np.float32)
    made = spikeport.convert(
        one_layer(), input_shape=3, input_range=(0, 255), steps=steps, max_spike=most
    )
    cell = made.program.populations[0].neuron
    assert isinstance(cell, GradedIntegrateAndFire)
    assert cell.max_spike == most
    recording = spikeport.run(made.program, x)
    z = x @ np.array([[1, -1], [-2, 1], [3, 2]]) + [1, -1]
    unit, v = 8 / most, np.full(z.shape, 4 / most)
    total = 0
    for step in range(steps):
        v = v + z
        k = np.clip(np.floor(v / unit), 0, most)
        v = v - k * unit
        total = total + k
        assert np.array_equal(recording.spikes[made.program.populations[0].name][step], k)
    out = total * unit @ np.array([[1, -1], [2, 1]]) / steps
    scale = made.program.readout.neuron.scale  # type: ignore[attr-defined]
    assert np.allclose(recording.logits * scale / steps, out, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("pooling", ["fold", "stage"])
def test_one_step_with_the_trained_levels_is_the_trained_network(pooling, digits_conv):
    """As many classes as the network with quantized activations has, of 8-bit weights."""
    network = digits_conv.network
    x = digits_conv.test.real()
    made = spikeport.convert(
        network.model, input_shape=(1, 8, 8), steps=1, max_spike=4, pooling=pooling
    )
    with torch.no_grad(), activation_mode(network.model, ActivationMode.QUANTIZED):
        wanted = network.model(torch.from_numpy(x).float()).argmax(1).numpy()
    graded = spikeport.run(made.program, x).logits.argmax(1)
    one = spikeport.convert(network.model, input_shape=(1, 8, 8), steps=1, pooling=pooling)
    plain = spikeport.run(one.program, x).logits.argmax(1)
    assert (graded == wanted).mean() > 0.98 > (plain == wanted).mean()


def test_branches_and_constant_planes():
    """Every trained activation gets graded neurons; a plane that is the same for any input not."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 3),
    ).eval()
    net[2].running_mean += 0.1
    made = spikeport.convert(net, calibrate=torch.rand(40, 1, 6, 6), steps=2, max_spike=3)
    kinds = {p.name: type(p.neuron) for p in made.program.spiking}
    planes = {k: kind for k, kind in kinds.items() if k not in ("0", "3")}
    assert kinds["0"] is kinds["3"] is GradedIntegrateAndFire
    assert len(planes) == 2
    assert set(planes.values()) == {IntegrateAndFire}
    residual = spikeport.convert(ResNet().eval(), input_shape=(2, 8, 8), steps=2, max_spike=3)
    assert {p.neuron.kind for p in residual.program.spiking} == {"GRADED_IF"}


def test_without_it_nothing_changes():
    plain, same = (
        spikeport.convert(one_layer(), input_shape=3, steps=2, **how)
        for how in ({}, {"max_spike": 1})
    )
    assert plain.program.hash == same.program.hash
    assert plain.program.spiking[0].neuron.kind == "IF"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"max_spike": 0}, r"(?s)no such largest spike.*1 \.\. 127"),
        ({"max_spike": 128}, r"(?s)no such largest spike.*1 \.\. 127"),
        ({"neuron": "cif"}, r'(?s)graded spikes are for IF.*neuron="if"'),
        ({"target": "loihi1"}, r"(?s)do not send such spikes.*up to 1 on loihi1"),
        ({"target": "stock-netx", "steps": 1}, r"(?s)do not send such.*up to 1 on stock-netx"),
        ({"target": "speck"}, r"(?s)do not send such spikes.*up to 1 on speck"),
    ],
)
def test_what_cannot_be(how, told):
    with pytest.raises(ConversionError, match=told):
        spikeport.convert(one_layer(), input_shape=3, input_bits=1, **{"max_spike": 4, **how})


def test_the_commands(tmp_path):
    """Convert, inspect, run on two backends, compare: K is an option, and is shown."""
    text = (
        "import torch, spikeport\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 9),\n"
        "        spikeport.QCFS(levels=4, threshold=1.0), torch.nn.Linear(9, 10))\n"
    )
    (tmp_path / "made.py").write_text(text)
    net, source = str(tmp_path / "a.net"), f"{tmp_path / 'made.py'}:net"
    how = ("--input-shape", "1,8,8", "--steps", "1", "--max-spike", "4")
    assert here("convert", source, *how, "-o", net).exit_code == 0
    shown = here("inspect", net)
    assert "GRADED_IF 4" in shown.output
    layers = json.loads(here("inspect", net, "--json").stdout)["layers"]
    assert [layer.get("max_spike") for layer in layers] == [4, None]
    records = [str(tmp_path / f"{backend}.npz") for backend in ("reference", "onnx")]
    for record, backend in zip(records, ("reference", "onnx"), strict=True):
        command = ("run", net, "--data", "digits@test[:20]", "--backend", backend, "-o", record)
        assert here(*command).exit_code == 0
    assert here("compare", *records).exit_code == 0
    how = ("--input-shape", "1,8,8", "--neuron", "cif", "--wake", "4", "--max-spike", "4")
    refused = here("convert", source, *how, "-o", str(tmp_path / "b.net"))
    assert refused.exit_code == 2
    assert "graded spikes are for IF" in str(refused.error)


def test_profiles_say_how_wide_spikes_are(tmp_path):
    text = """
description = "narrow"
[limits]
weight_bits = {value = 8, source = ""}
max_weight_exponent = {value = 7, source = ""}
state_bits = {value = 24, source = ""}
threshold_max = {value = 4194303, source = ""}
bias_max = {value = 8388607, source = ""}
max_input_bits = {value = 8, source = ""}
"""
    own = tmp_path / "narrow.toml"
    own.write_text(text)
    assert load_profile(str(own)).as_target_limits().max_spike_bits == 1
    own.write_text(text + 'max_spike_bits = {value = 2, source = ""}\n')
    how = {"input_shape": 3, "target": str(own)}
    made = spikeport.convert(one_layer(), max_spike=3, **how)
    assert made.program.spike_range(made.program.spiking[0].name).high == 3
    with pytest.raises(ConversionError, match="up to 3 on narrow"):
        spikeport.convert(one_layer(), max_spike=4, **how)
    own.write_text(text + 'max_spike_bits = {value = 0, source = ""}\n')
    with pytest.raises(TargetError, match=r"max_spike_bits is 0, not 1 \.\. 32"):
        load_profile(str(own))
