"""Networks of sequences: their layers are those of images with one row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import spikeport
from tests.branched_modules import randomise
from toolchain.conversion.float_values import node_values
from toolchain.conversion.frontend.input_form import of_images
from toolchain.conversion.frontend.trace import traced
from toolchain.conversion.passes.fold import fold
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.float_program import MaxPool2d


def assert_converts(model, shape):
    model = randomise(model).double()
    images, image, (note,) = of_images(model, shape)
    assert str(image) in note
    found = traced(images, image)
    program, _ = fold(found.program)
    samples = torch.rand(5, *shape, dtype=torch.float64)
    values = node_values(program, samples.unsqueeze(2))
    with torch.no_grad():
        wanted = model(samples)
    (name,), (last,) = program.outputs, found.left_out
    got = values[name] if last is None else last(values[name])
    assert torch.allclose(got.reshape(wanted.shape), wanted, rtol=1e-9, atol=1e-9)
    return program


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1, groups=2),
            nn.BatchNorm1d(channels),
            QCFS(4, 1.0),
            nn.Conv1d(channels, channels, 3, padding=2, dilation=2),
        )
        self.act = QCFS(4, 1.0)

    def forward(self, x):
        first, second = x.chunk(2, 1)
        x = torch.cat([second, first], 1) * 0.5
        return self.act(self.body(x) + x)


def test_a_residual_network():
    head = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    stem = (nn.ZeroPad1d((2, 0)), nn.Conv1d(2, 4, 3, stride=2, bias=False), QCFS(4, 1.0))
    assert_converts(nn.Sequential(*stem, Residual(4), nn.MaxPool1d(2), *head), (2, 20))


def test_pools_of_sequences_that_hang_over_the_end():
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3),
        QCFS(4, 1.0),
        nn.MaxPool1d(3, 2, ceil_mode=True),
        nn.ConstantPad1d((1, 0), 0.0),
        nn.MaxPool1d(2, 2),
        nn.ConstantPad1d((0, 1), -torch.inf),
        nn.MaxPool1d(2, 1),
        nn.Conv1d(3, 2, 1),
    )
    program = assert_converts(model, (2, 16))
    pools = [n for n in program.nodes if isinstance(n, MaxPool2d)]
    assert [n.overhang for n in pools] == [(0, 1), (0, 0), (0, 1)]


@pytest.mark.parametrize(
    "behind",
    [
        lambda x: F.avg_pool1d(x, 2).flatten(1),
        lambda x: F.max_pool1d(x, 3, 2, padding=1)[:, :, :6].flatten(1),
        lambda x: F.adaptive_max_pool1d(x, 6).flatten(1),
        lambda x: F.adaptive_avg_pool1d(x, 6).permute(0, 2, 1).flatten(1),
        lambda x: F.conv1d(x, torch.eye(4, dtype=x.dtype).unsqueeze(2) / 2, stride=2).flatten(1),
    ],
)
def test_functions_of_sequences(behind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv1d(3, 4, 1), CQReLU(4)
            self.head = nn.Linear(24, 2)

        def forward(self, x):
            return self.head(behind(self.act(self.conv(x))))

    assert_converts(Net(), (3, 12))


def test_the_mean_over_time():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.head = nn.Conv1d(3, 4, 3), QCFS(4, 1.0), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.act(self.conv(x)).mean(-1)).log_softmax(1)

    assert_converts(Net(), (3, 9))


@settings(max_examples=40)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2), st.integers(8, 20)
)
def test_convolutions(kernel, stride, padding, dilation, length):
    conv = nn.Conv1d(2, 4, kernel, stride, padding, dilation)
    count = conv(torch.zeros(1, 2, length)).shape[-1]
    assert_converts(
        nn.Sequential(conv, QCFS(4, 1.0), nn.Flatten(), nn.Linear(4 * count, 2)), (2, length)
    )


def net():
    torch.manual_seed(0)
    layers = (nn.Conv1d(2, 8, 5, padding=2), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(64, 3))


def test_end_to_end_on_both_simulators():
    """Samples stay (N, C, L) for the user, from calibration to Lava."""
    x = np.random.default_rng(0).uniform(0, 1, (40, 2, 32)).astype(np.float32)
    model = net()
    with pytest.raises(UnsupportedModuleError, match=r"(?s)^0: .*\(1, 2, 32\).*input_shape="):
        spikeport.convert(model, calibrate=x, relu_percentile=100.0)
    conversion = spikeport.convert(
        model, input_shape=(2, 32), calibrate=x, relu_percentile=100.0, steps=32
    )
    assert conversion.program.input.shape == (2, 1, 32)
    assert "sequences (2, 32) are taken as images (2, 1, 32)" in conversion.notes
    found = spikeport.run(conversion, x)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).argmax(1).numpy()
    (outputs,) = found.outputs.values()
    assert (outputs.argmax(1) == expected).mean() > 0.9
    lava = spikeport.run(conversion, x[:3], backend="lava", models="fast")
    assert spikeport.compare(spikeport.run(conversion, x[:3]), lava).equal
    assert type(model).__module__.startswith("torch.")  # the caller's module is as it was
    with pytest.raises(DataError, match="shape"):
        spikeport.run(conversion, x[:, :, :31])


def test_check_takes_sequences():
    found = spikeport.check(net(), input_shape=(2, 32))
    assert found.ok
    assert "sequences (2, 32) are taken as images (2, 1, 32)" in found.notes


@pytest.mark.parametrize("pool", [nn.AdaptiveMaxPool1d, nn.MaxPool1d])
def test_indices_of_maxima_are_refused(pool):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv1d(2, 4, 1), QCFS(4, 1.0)
            self.pool, self.head = pool(2, return_indices=True), nn.Conv1d(4, 2, 1)

        def forward(self, x):
            return self.head(self.pool(self.act(self.conv(x)))[0])

    found = spikeport.check(Net(), input_shape=(2, 8))
    assert ["return_indices" in obstacle.message for obstacle in found.obstacles] == [True]
