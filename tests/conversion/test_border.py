"""Constants in front of convolutions that pad: the zeros of the padding do not carry them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import spikeport
from exports.lava.runner import run_on_lava
from exports.netx import read_net, write_net
from tests.branched_modules import assert_program_is, randomise
from tests.comparing import assert_lossless, assert_recording_is, assert_same
from tests.oracles import numpy_loop
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.float_program import Activation
from toolchain.simulator.reference import simulate


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@given(
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 4),
    dilation=pairs(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    size=pairs(1, 7),
    behind_spikes=st.booleans(),
)
def test_every_geometry(kernel, stride, padding, dilation, groups, size, behind_spikes):
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    first = [nn.Conv2d(4, 4, 1), QCFS(4, 1.0)] if behind_spikes else []
    model = nn.Sequential(*first, nn.BatchNorm2d(4), conv)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(s + 2 * p >= r for s, p, r in zip(size, padding, reach, strict=True)))
    assert_program_is(model, (4, *size))


@pytest.mark.parametrize(
    "between",
    [
        [nn.MaxPool2d(2)],
        [nn.MaxPool2d(3, 2, 1)],
        [nn.AvgPool2d(2)],
        [nn.ZeroPad2d((0, 1, 0, 1))],
        [nn.ZeroPad2d((1, 0, 3, 2)), nn.Conv2d(4, 4, 3, groups=4), CQReLU(4), nn.BatchNorm2d(4)],
    ],
)
def test_behind_pools_and_zeros(between):
    last = nn.Conv2d(4, 3, 3, padding=(1, 2), bias=False)
    model = randomise(
        nn.Sequential(nn.Conv2d(2, 4, 3), QCFS(4, 1.0), nn.BatchNorm2d(4), *between, last)
    ).double()
    samples = torch.randn(5, 2, 10, 8, dtype=torch.float64)
    program, _ = fold(trace(model, (2, 10, 8)))
    with torch.no_grad():
        assert torch.allclose(evaluate(program, samples), model(samples), atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2, (3, 2)])
@pytest.mark.parametrize(
    "second",
    [nn.Conv2d(6, 3, 3, padding=1), nn.Conv2d(6, 6, (3, 2), 2, (3, 1), 2, groups=6)],
)
def test_behind_a_convolution_with_a_bias(stride, second):
    """Two convolutions in a row, where the zeros of the second have no bias of the first."""
    first = [nn.Conv2d(2, 4, 3), QCFS(4, 1.0), nn.Conv2d(4, 6, 1, stride)]
    model = randomise(
        nn.Sequential(*first, second, QCFS(4, 1.0), nn.Conv2d(len(second.weight), 2, 1))
    )
    samples = torch.randn(5, 2, 10, 9, dtype=torch.float64)
    program, notes = fold(trace(model.double(), (2, 10, 9)))
    assert any("border[" in note for note in notes)
    with torch.no_grad():
        assert torch.allclose(evaluate(program, samples), model(samples), atol=1e-9)


class Scaled(nn.Module):
    """(x - mean) / std in front of a convolution that pads, and makes a larger image."""

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Conv2d(2, 3, 1, padding=3), CQReLU(4)
        self.norm, self.second = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        x = self.act(self.first((x - 0.4) / 0.2))
        return self.second(self.norm(x)) + self.second(self.norm(x) * 2)


def test_several_users_share_the_planes():
    program = assert_program_is(Scaled(), (2, 5, 6))
    planes = [n.source for n in program.nodes if isinstance(n, Activation) and n.is_constant]
    assert planes == ["ones[5x6]", "border[5x6+3x3]", "ones[11x12]", "border[11x12+1x1]"]
    _, notes = fold(trace(randomise(Scaled()), (2, 5, 6)))
    assert notes[1].endswith("in front of second, second#2")


def exact_network():
    """Every weight, gain and offset is a small multiple of a power of two."""
    generator = torch.Generator().manual_seed(5)
    model = nn.Sequential(
        nn.BatchNorm2d(2, eps=0),
        nn.Conv2d(2, 4, 3, padding=1),
        CQReLU(4),
        nn.BatchNorm2d(4, eps=0),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=(2, 1), stride=(2, 1), groups=2),
        CQReLU(4),
        nn.BatchNorm2d(4, eps=0),
        nn.Conv2d(4, 3, 3, padding=1, bias=False),
        CQReLU(4),
        nn.Flatten(),
        nn.Linear(36, 5),
    ).double()
    for module in model:
        for name, tensor in module.named_parameters():
            if name != "threshold":
                whole = torch.randint(-1, 2, tensor.shape, generator=generator)
                is_gain = isinstance(module, nn.BatchNorm2d) and name == "weight"
                tensor.data = 2.0 ** -whole.abs() if is_gain else whole / 2.0
    return model.eval()


def test_integers_are_those_of_the_network(tmp_path):
    """Settled CIF: the network itself to the last unit, in every backend."""
    model = exact_network()
    conversion = spikeport.convert(
        model.float(),
        input_shape=(2, 9, 8),
        input_range=(0, 15 / 16),
        input_bits=4,
        neuron="cif",
        steps=4,
        sleep_steps=24,
    )
    program = conversion.program
    assert all(r.weight_error == r.bias_error == 0 for r in conversion.rounding)
    inputs = np.random.default_rng(3).integers(0, 16, (6, 2, 9, 8))
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(inputs * program.input.scale)).numpy()
    recording = simulate(program, inputs)
    assert_lossless(program, inputs, recording)
    found = recording.logits * program.readout.neuron.reals()["scale"] / 4
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert_same(program, inputs)
    write_net(program, tmp_path / "n.net")
    read = read_net(tmp_path / "n.net")
    assert read.hash == program.hash
    assert_recording_is(run_on_lava(read, inputs, time_limit=200), *numpy_loop.run(read, inputs))


def test_planes_fire_in_every_step():
    """IF, with a plain ReLU's threshold from data: the planes take no part in the fit."""
    model = randomise(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 3, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3 * 6 * 7, 4),
        )
    )
    samples = torch.rand(32, 2, 6, 7)
    program = spikeport.convert(model, calibrate=samples, steps=3).program
    inputs = program.input.quantize(samples[:4].numpy())
    recording = spikeport.run(program, samples[:4].numpy())
    assert (recording.counts["ones[6x7]"] == 3).all()
    ring = np.pad(np.zeros((6, 7), int), 1, constant_values=3)
    assert (recording.counts["border[6x7+1x1]"] == ring).all()
    assert_same(program, inputs)
    assert_recording_is(
        run_on_lava(program, inputs, time_limit=200), *numpy_loop.run(program, inputs)
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_plane_takes_no_bits_from_the_convolution(bits, groups):
    """Offsets ten times the threshold: the plane has high and low bits, in two synapses."""
    torch.manual_seed(0)
    norm, conv = nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    nn.init.normal_(norm.bias, std=10.0)
    first = [nn.Conv2d(2, 4, 3, padding=1), QCFS(8, 1.0)]
    last = [QCFS(8, 10.0), nn.Flatten(), nn.Linear(8 * 56, 5)]
    model = nn.Sequential(*first, norm, conv, *last)
    conversion = spikeport.convert(model, input_shape=(2, 8, 7), steps=8, weight_bits=bits)
    (rounding,) = (r for r in conversion.rounding if r.name == "3")
    own, plane = rounding.branches
    unit = 1 / (2 ** (bits - 1) - 1)
    assert plane.source == "border[8x7+1x1]"
    assert len(own.exponents) == 1
    assert len(plane.exponents) == 2
    assert own.weight_error < 0.75 * unit
    assert plane.weight_error < 0.25 * unit
