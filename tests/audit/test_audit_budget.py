"""The audit's error budget: by hand, against torch's own modules, and adding up."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hw_models.profile import load_profile
from tests.branched_modules import Block, ResNet, act
from toolchain.audit.activity import LayerExtremes, count_spikes
from toolchain.audit.budget import Budget
from toolchain.audit.error_ablation import (
    FLOAT,
    INPUT_QUANTIZED,
    QUANTIZED,
    ROUNDED,
    UNEVEN,
    Chain,
    make_chain,
)
from toolchain.audit.scorers import Classifier
from toolchain.audit.source_network import Acts, SourceNetwork
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.engine.engine import Engine
from toolchain.engine.settle import with_measured_sleep
from toolchain.errors import CheckpointError
from toolchain.learning.activations import QCFS, ActivationMode, CQReLU, activation_mode
from toolchain.learning.evaluation.float_network import spiking_logits
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode as RecordingMode
from toolchain.simulator import reference

SHAPE = (1, 8, 8)
FLOAT32 = 1e-6
"""torch's modules compute in float32 here and there; means of values of about 1."""
LIMITS = load_profile("loihi2").as_target_limits()


def lenet(make, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        make(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        make(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 12),
        make(),
        nn.Linear(12, 5),
    ).eval()


def only(outputs):
    """The only output of several."""
    (output,) = outputs.values()
    return output


def converted(model, steps=4, neuron="if", **how):
    quantizer = InputQuantizer.for_interval(SHAPE, 0.0, 1.0, levels=255)
    schedule = Schedule(steps, 40) if neuron == "cif" else Schedule(steps)
    options = ConversionOptions(neuron, schedule, pooling="stage", **how)
    calibration = None
    if how.get("relu_percentile"):
        samples = np.random.default_rng(5).integers(0, 256, (64, *SHAPE))
        calibration = Calibration("noise", samples)
    made = convert(model, quantizer, options, LIMITS, name="net", calibration=calibration)
    return made.program


def audited(program, model, count=12, seed=1):
    samples = np.random.default_rng(seed).random((count, *SHAPE))
    inputs = program.input.quantize(samples)
    source = SourceNetwork.of(program, model)
    budget = Budget(source)
    extremes = {p.name: LayerExtremes() for p in program.populations}
    found = count_spikes(Engine(program), program, inputs, extremes)
    budget.add(inputs, samples, found)
    return source, budget, inputs, samples, found


def activations_of(model, x, mode):
    """What torch's own modules give: values of the activations in order, and the output."""
    seen = []
    hooks = [
        m.register_forward_hook(lambda _m, _i, out: seen.append(out))
        for m in model.modules()
        if isinstance(m, QCFS | CQReLU | nn.ReLU)
    ]
    double = model.double()
    with torch.no_grad(), activation_mode(double, mode):
        out = double(torch.from_numpy(x))
    for hook in hooks:
        hook.remove()
    return seen, out


@pytest.mark.parametrize(("neuron", "most"), [("if", 1), ("cif", 1), ("if", 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_totals_are_those_of_two_independent_networks(neuron, most, seed):
    """The reference simulator's counts against torch's modules; terms add up neuron by neuron."""
    model = lenet(lambda: QCFS(4, 1.5), seed)
    program = converted(model, neuron=neuron, max_spike=most)
    _, budget, inputs, samples, _ = audited(program, model)
    recording = reference.simulate(program, inputs, mode=RecordingMode.COUNTS)
    values, out = activations_of(model, samples, ActivationMode.CLIPPED)
    spiking = [p.name for p in program.spiking if p.neuron.kind in ("IF", "CIF", "GRADED_IF")]
    for name, value in zip(spiking, values, strict=True):
        layer = budget.layers[name]
        expected = torch.from_numpy(recording.counts[name]) / (4 * most) - value / 1.5
        assert layer.total.describe()["mean"] == pytest.approx(float(expected.mean()), abs=FLOAT32)
        rms = float((expected**2).mean().sqrt())
        assert layer.total.describe()["rms"] == pytest.approx(rms, abs=FLOAT32)
        assert layer.unexplained < 1e-12
        assert sum(t.total for t in layer.terms.values()) == pytest.approx(layer.total.total)
        assert layer.terms["clipping"].magnitude == 0
    readout = budget.layers[program.readout.name]
    scale = program.readout.neuron.scale
    expected = torch.from_numpy(recording.logits) * scale / 4 - out
    assert readout.total.describe()["mean"] == pytest.approx(float(expected.mean()), abs=FLOAT32)
    assert readout.unexplained < 1e-12


def test_settled_cif_is_even():
    model = lenet(lambda: CQReLU(4))
    program = converted(model, neuron="cif")
    samples = np.random.default_rng(1).random((12, *SHAPE))
    program = with_measured_sleep(program, program.input.quantize(samples)).program
    _, budget, *_ = audited(program, model)
    for layer in budget.layers.values():
        if layer.unit == "lam":
            assert layer.terms["unevenness"].magnitude == 0
            assert (layer.too_many, layer.too_few) == (0, 0)


def test_one_neuron_by_hand():
    # theta = 127 for lam 2; weight 1.0 -> 63.5 per unit of 2, rounded to 64 (half to even: 64).
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False), QCFS(4, 2.0), nn.Linear(1, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -0.5]]))
        model[3].weight.fill_(1.0)
        model[3].bias.zero_()
    quantizer = InputQuantizer((1, 1, 2), 1.0, bits=4)
    options = ConversionOptions("if", Schedule(4), thresholds="largest")
    program = convert(model.eval(), quantizer, options, LIMITS, name="one").program
    cell = program.populations[0]
    theta = int(cell.neuron.threshold[0])  # type: ignore[attr-defined]
    weight = cell.synapses[0].weight.ravel().tolist()
    source = SourceNetwork.of(program, model)
    budget = Budget(source)
    inputs = np.array([[[[3, 1]]]])
    extremes = {p.name: LayerExtremes() for p in program.populations}
    found = count_spikes(Engine(program), program, inputs, extremes)
    budget.add(inputs, inputs.astype(float), found)
    # z = 3 - 0.5 = 2.5, in thresholds 1.25: clipped to 1 = all four spikes.
    assert weight[0] * 3 + weight[1] >= theta
    described = budget.layers[cell.name].describe()
    assert described["total"]["mean"] == 0.0
    assert all(t["rms"] == 0 for t in described["terms"].values())
    # Input (1, 1): z = 0.5, 0.25 of a threshold: one spike of four, exactly.
    inputs = np.array([[[[1, 1]]]])
    budget = Budget(source)
    budget.add(
        inputs, inputs.astype(float), count_spikes(Engine(program), program, inputs, extremes)
    )
    described = budget.layers[cell.name].describe()
    current = weight[0] + weight[1]
    even = (4 * current + theta // 2) // theta
    assert described["terms"]["quantization"]["mean"] == 0.0
    assert described["terms"]["rounding"]["mean"] == even / 4 - 0.25


def test_the_rounded_input_is_a_term_of_its_own():
    """Two-bit inputs: what rounding them costs the first layer, by torch's own module."""
    model = lenet(lambda: QCFS(4, 1.5))
    quantizer = InputQuantizer.for_interval(SHAPE, 0.0, 1.0, levels=3)
    options = ConversionOptions("if", Schedule(4), pooling="stage")
    program = convert(model, quantizer, options, LIMITS, name="net").program
    _, budget, inputs, samples, _ = audited(program, model)
    first, *others = [layer for layer in budget.layers.values() if layer.unit == "lam"]
    given, _ = activations_of(model, inputs * quantizer.scale, ActivationMode.CLIPPED)
    real, _ = activations_of(model, samples, ActivationMode.CLIPPED)
    expected = float(((given[0] - real[0]) / 1.5).mean())
    assert abs(expected) > 1e-4
    assert first.terms["input"].describe()["mean"] == pytest.approx(expected, abs=FLOAT32)
    assert first.terms["propagated"].magnitude == 0
    assert all(layer.terms["input"].magnitude == 0 for layer in others)
    assert all(layer.unexplained < 1e-12 for layer in budget.layers.values())


def test_measured_thresholds_clip():
    """Thresholds of plain ReLUs are an error of the conversion, not of the network."""
    model = lenet(nn.ReLU)
    program = converted(model, relu_percentile=90.0)
    source, budget, inputs, samples, _ = audited(program, model)
    assert source.measured
    values, _ = activations_of(model, samples, ActivationMode.CLIPPED)
    recording = reference.simulate(program, inputs, mode=RecordingMode.COUNTS)
    spiking = [p.name for p in program.spiking if p.neuron.kind == "IF"]
    thresholds = program.provenance["relu_thresholds"]
    for name, value in zip(spiking, values, strict=True):
        lam = torch.tensor(thresholds[name]).reshape(1, -1, *([1] * (value.ndim - 2)))
        expected = torch.from_numpy(recording.counts[name]) / 4 - value / lam
        found = budget.layers[name].describe()
        assert found["total"]["mean"] == pytest.approx(float(expected.mean()), abs=FLOAT32)
        assert found["terms"]["clipping"]["mean"] < 0
        assert found["unexplained"] < 1e-12


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), steps=st.integers(1, 9), bits=st.integers(5, 8))
def test_budgets_of_residual_networks_add_up(seed, steps, bits):
    torch.manual_seed(seed)
    model = (
        ResNet(act).eval()
        if seed % 2
        else nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), act(), Block(4, 4), nn.Flatten(), nn.Linear(256, 3)
        ).eval()
    )
    shape = (2, 8, 8) if seed % 2 else SHAPE
    quantizer = InputQuantizer.for_interval(shape, 0.0, 1.0, levels=255)
    options = ConversionOptions("if", Schedule(steps), bits, watch_ranges=True)
    program = convert(model, quantizer, options, LIMITS, name="net").program
    samples = np.random.default_rng(seed).random((3, *shape))
    inputs = program.input.quantize(samples)
    budget = Budget(SourceNetwork.of(program, model))
    extremes = {p.name: LayerExtremes() for p in program.populations}
    budget.add(inputs, samples, count_spikes(Engine(program), program, inputs, extremes))
    for layer in budget.layers.values():
        assert layer.unexplained < 1e-10


@pytest.mark.parametrize("neuron", ["if", "cif"])
def test_the_chain_goes_from_the_module_to_the_integer_network(neuron):
    model = lenet(lambda: QCFS(4, 1.5))
    program = converted(model, neuron=neuron)
    source, _, inputs, samples, found = audited(program, model, count=40)
    halves = [slice(0, 25), slice(25, 40)]
    chain = Chain.joined(
        [make_chain(source, inputs[h], samples[h], found.readout[-1][h]) for h in halves]
    )
    names = list(chain.steps)
    _, clipped = activations_of(model, samples, ActivationMode.CLIPPED)
    _, quantized = activations_of(model, samples, ActivationMode.QUANTIZED)
    assert np.allclose(chain.steps[names[0]], clipped, atol=1e-4)
    assert np.allclose(chain.steps[names[1]], quantized, atol=1e-4)
    assert np.array_equal(chain.steps[UNEVEN], reference.simulate(program, inputs).logits)
    labels = clipped.argmax(1).numpy()
    described = chain.describe(Classifier(labels))["steps"]
    gap = described[-1]["accuracy"] - described[0]["accuracy"]
    assert sum(s["change"] for s in described[1:]) == pytest.approx(gap, abs=1e-12)


def test_advice_names_the_largest_loss_first():
    # Of 1000 samples 900, 880, 881, 600 and 599 are right.
    labels = np.zeros(1000, int)
    outputs = [np.zeros((1000, 2)) for _ in range(5)]
    for values, right in zip(outputs, (900, 880, 881, 600, 599), strict=True):
        values[right:, 1] = 1
    steps = dict(zip((FLOAT, QUANTIZED, INPUT_QUANTIZED, ROUNDED, UNEVEN), outputs, strict=True))
    described = Chain(steps, {}).describe(Classifier(labels))
    assert [round(1000 * s["change"]) for s in described["steps"][1:]] == [-20, 1, -281, -1]
    first, second = described["advice"]
    outside = "(281 of 1,000 samples, outside the 95 % interval)"
    inside = "(20 of 1,000 samples, inside the 95 % interval)"
    assert first.startswith(
        f"threshold and weight rounding costs 28.10 points {outside}: more weight_bits="
    )
    # 88 %, where 900 of 1000 have 87.98 .. 91.71 %.
    assert second.startswith(f"activation quantization costs 2.00 points {inside}: more steps")


def test_float_spikes_are_those_of_the_module():
    """The float spiking network against the activation modules' own spiking mode."""
    model = lenet(lambda: QCFS(4, 1.5))
    model[2] = nn.AvgPool2d(2)
    program = converted(model)
    source = SourceNetwork.of(program, model)
    inputs = np.random.default_rng(3).integers(0, 256, (9, *SHAPE))
    x = torch.from_numpy(inputs * program.input.scale).float()
    expected = spiking_logits(model.float(), x, [4])[4]
    assert np.allclose(only(source.spiking_outputs(inputs)) * 4, np.asarray(expected), atol=1e-3)


def test_settled_float_cif_is_the_quantized_module():
    model = lenet(lambda: CQReLU(4)).float()
    program = converted(model, neuron="cif")
    source = SourceNetwork.of(program, model)
    inputs = np.random.default_rng(3).integers(0, 256, (9, *SHAPE))
    x = torch.from_numpy(inputs * program.input.scale).float()
    quantized = source.forward(x, Acts.QUANTIZED)[program.readout.name]
    assert np.allclose(only(source.spiking_outputs(inputs)), quantized, atol=1e-3)


def test_another_network_is_refused():
    program = converted(lenet(lambda: QCFS(4, 1.5)))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), QCFS(4, 1.0), nn.Linear(9, 5)).eval()
    with pytest.raises(CheckpointError, match="not the network"):
        SourceNetwork.of(program, other)
