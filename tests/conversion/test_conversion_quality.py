"""What threshold search and compensating rounding bring to trained networks, and their edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.calibration import MINIMUM_SAMPLES, Calibration
from toolchain.engine.settle import settle_time, with_measured_sleep
from toolchain.errors import ConversionError, DataError, UnprovedRangeError
from toolchain.learning.activations import QCFS
from toolchain.learning.data import open_split
from toolchain.learning.data.dataset import choose_samples
from toolchain.learning.evaluation.float_network import spiking_logits
from toolchain.program.bounds import overload
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

STEPS = 4
BRANCHED_SHAPE = (2, 8, 8)


class Residual(nn.Module):
    """An identity shortcut, then one with a strided 1x1 convolution and groups beside it."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.acts = nn.ModuleList(QCFS(4, 1.0) for _ in range(3))
        self.head = nn.Linear(128, 3)

    def forward(self, x):
        x = self.acts[0](self.stem(x))
        x = self.acts[1](self.one(x) + x)
        x = self.acts[2](self.two(x) + self.shortcut(x))
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def calibration(digits_conv):
    train = open_split("digits@train")
    chosen = train.take(choose_samples(len(train), 256, 0))
    return Calibration("digits@train", digits_conv.network.quantizer.quantize(chosen.real()))


@pytest.fixture(scope="module")
def errors(digits_conv, calibration, limits):
    """Root mean square error of the logits against the float spiking network, relative."""
    network = digits_conv.network
    inputs = network.quantizer.quantize(digits_conv.test.real())
    x = torch.from_numpy(inputs * network.quantizer.scale).float()
    exact = spiking_logits(network.model, x, [STEPS])[STEPS]

    def error(bits, thresholds, rounding):
        options = ConversionOptions(
            "if", Schedule(STEPS), bits, thresholds=thresholds, rounding=rounding
        )
        program = convert(
            network.model, network.quantizer, options, limits, name="q", calibration=calibration
        ).program
        found = simulate(program, inputs).logits * program.readout.neuron.scale  # type: ignore[attr-defined]
        return float(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()))

    return error


def test_search_and_compensation_bring_the_logits_nearer(errors):
    """By the most where bits are fewest; at four and more, search alone is within the scatter."""
    assert errors(2, "search", "nearest") < 0.7 * errors(2, "largest", "nearest")
    for bits, share in ((4, 0.85), (3, 0.8), (2, 0.5)):
        plain = errors(bits, "largest", "nearest")
        assert errors(bits, "largest", "gptq") < plain
        assert errors(bits, "search", "gptq") < share * plain


def test_signal_to_noise_ratio_by_hand(limits):
    model = nn.Sequential(nn.Linear(2, 1, bias=False), QCFS(4, 1.0), nn.Linear(1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.3]]))
        model[2].weight.fill_(1.0)
    options = ConversionOptions("if", Schedule(4), 4, thresholds="largest")
    conversion = convert(model.eval(), InputQuantizer((2,), 1.0, 2), options, limits, name="h")
    # theta 7: [7, 2.1] -> [7, 2]: noise (0.1 / 7)^2 against 1.09
    weight = float(np.float32(0.3))
    noise = (2 / 7 - weight) ** 2
    assert conversion.rounding[0].sqnr_db == pytest.approx(
        10 * np.log10((1 + weight**2) / noise), rel=1e-6
    )
    assert conversion.rounding[1].zeroed == 0
    assert "rounding" in conversion.program.provenance


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize("bits", [4, 8])
def test_branched_networks(rounding, bits, limits):
    """Residual sums: identities with exponents of their own, all ranges proved."""
    torch.manual_seed(0)
    model = Residual().eval()
    quantizer = InputQuantizer(BRANCHED_SHAPE, 1 / 255)
    inputs = np.random.default_rng(0).integers(0, 256, (32, *BRANCHED_SHAPE)).astype(np.int32)
    options = ConversionOptions("if", Schedule(4), bits, rounding=rounding)
    conversion = convert(
        model, quantizer, options, limits, name="b", calibration=Calibration("random", inputs)
    )
    assert all((load <= 1).all() for load in overload(conversion.program).values())
    assert any(len(p.synapses) > 1 for p in conversion.program.populations)
    simulate(conversion.program, inputs[:4])


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_ranges_are_made_provable_with_every_rounding(rounding, limits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 3), QCFS(4, 4.0), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0] = model[0].weight[0].sign() * 0.02
    inputs = np.random.default_rng(0).integers(0, 256, (40, 600))
    options = ConversionOptions("if", Schedule(4), rounding=rounding)
    quantizer = InputQuantizer((600,), 1 / 255)
    conversion = convert(
        model.eval(), quantizer, options, limits, name="w", calibration=Calibration("r", inputs)
    )
    assert conversion.rounding[0].lowered
    assert (overload(conversion.program)["0"] <= 1).all()


def test_clipping_is_counted_and_told(limits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4), QCFS(4, 1.0), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight[:, 0] = 0.6
    options = ConversionOptions("if", Schedule(4), 3, allow_clipping=True)
    quantizer = InputQuantizer((64,), 1.0, 1)
    clipped = convert(model.eval(), quantizer, options, limits, name="c")
    assert clipped.rounding[0].clipped > 0
    assert f"0: {clipped.rounding[0].clipped} of 256 weights were clipped" in clipped.notes[0]
    assert clipped.program.populations[0].synapses[0].weight.max() == 3
    plain = convert(model, quantizer, replace(options, allow_clipping=False), limits, name="c")
    assert plain.rounding[0].clipped == 0
    with pytest.raises(ConversionError, match="clipping is part of the threshold search"):
        convert(model, quantizer, replace(options, thresholds="largest"), limits, name="c")


def test_calibration_sets():
    with pytest.raises(DataError, match=r"few: too few samples(.|\n)*found:   15(.|\n)*16"):
        Calibration("few", np.zeros((MINIMUM_SAMPLES - 1, 3)))
    assert choose_samples(10, 20, 0).tolist() == list(range(10))
    chosen = choose_samples(1000, 50, 1)
    assert len(set(chosen.tolist())) == 50
    assert np.array_equal(chosen, choose_samples(1000, 50, 1))
    assert not np.array_equal(chosen, choose_samples(1000, 50, 2))


def test_measured_sleep_is_set_and_proved_in_one_place(digits_cqrelu, limits):
    network = digits_cqrelu.network
    options = ConversionOptions("cif", Schedule(4, 16))
    program = convert(network.model, network.quantizer, options, limits, name="c").program
    inputs = network.quantizer.quantize(digits_cqrelu.test.real()[:40])
    needed = settle_time(program, inputs)
    for factor in (1, 2):
        settled = with_measured_sleep(program, inputs, factor=factor)
        assert settled.measured == needed
        assert settled.program.schedule == Schedule(4, factor * needed)
        assert [b.name for b in settled.bounds] == [p.name for p in program.populations]
        recording = simulate(settled.program, inputs)
        assert sum(recording.meta["unsettled"].values()) == 0
    # Proved again, not taken over: narrower states cannot be proved, unless they are watched.
    narrow = replace(program, state_bits=16, watch_ranges=True)
    assert with_measured_sleep(narrow, inputs).bounds
    with pytest.raises(UnprovedRangeError):
        with_measured_sleep(replace(narrow, watch_ranges=False), inputs[:1])
