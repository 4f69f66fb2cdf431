"""Networks of several inputs become networks of one, whose channels are theirs."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from tests.branched_modules import randomise
from tests.onnx_files import node, onnx, open_onnx, ort, write
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.input_form import of_images
from toolchain.conversion.frontend.trace import trace
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import QCFS


class Two(nn.Module):
    """A colour image and a depth map, each with layers of its own."""

    def __init__(self):
        super().__init__()
        self.colour, self.depth = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.act, self.head = QCFS(4, 1.0), nn.Linear(4 * 30, 3)

    def forward(self, colour, depth, scale=0.5):
        return self.head(self.act(self.colour(colour) + scale * self.depth(depth)).flatten(1))


class Distance(nn.Module):
    """Two vectors through the same layers."""

    def __init__(self):
        super().__init__()
        self.layer, self.act, self.head = nn.Linear(5, 6), QCFS(4, 1.0), nn.Linear(6, 2)

    def forward(self, first, second):
        return self.head(self.act(self.layer(first)) - self.act(self.layer(second)))


class Joined(nn.Module):
    """Three inputs that are joined at once: every division is the same network."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(7, 2, 3)

    def forward(self, a, b, c):
        return self.conv(torch.cat([a, b, c], 1))


@pytest.mark.parametrize(
    ("model", "shape", "sizes", "told"),
    [
        (Two(), (4, 6, 5), (3, 1), "in this order: colour (3), depth (1)"),
        (Distance(), (10,), (5, 5), "in this order: first (5), second (5)"),
        (Joined(), (7, 6, 5), (1, 1, 5), "in this order: a (1), b (1), c (5)"),
    ],
)
def test_modules(model, shape, sizes, told):
    model = randomise(model).double()
    samples = torch.randn(5, *shape, dtype=torch.float64)
    one, image, (note,) = of_images(model, shape)
    assert image == shape
    assert told in note
    with torch.no_grad():
        expected = model(*samples.split(sizes, 1))
    assert torch.allclose(evaluate(trace(one, shape), samples), expected)


class Ambiguous(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, a, b):
        return self.conv(a * 2 + b)  # either may be broadcast


@pytest.mark.parametrize(
    ("model", "shape"), [(Ambiguous(), (4, 6, 5)), (Two(), (5, 6, 5)), (Distance(), (300,))]
)
def test_what_the_layers_do_not_divide_in_one_way_is_refused(model, shape):
    check = spikeport.check(model, input_shape=shape)
    (obstacle,) = check.obstacles
    assert "several inputs" in obstacle.message
    assert "x.split([3, 1], 1)" in str(obstacle)


def test_from_a_factory_to_spikes(tmp_path):
    torch.manual_seed(0)
    model = Two().eval()
    x = np.random.default_rng(0).uniform(0, 1, (40, 4, 6, 5)).astype(np.float32)
    conversion = spikeport.convert(model, calibrate=x, neuron="cif", steps=4, sleep_steps=20)
    assert any("colour (3), depth (1)" in note for note in conversion.notes)
    (found,) = spikeport.run(conversion, x).outputs.values()
    with torch.no_grad():
        wanted = model(torch.from_numpy(x[:, :3]), torch.from_numpy(x[:, 3:]))
    assert (found.argmax(1) == wanted.argmax(1).numpy()).mean() > 0.9
    (tmp_path / "nets.py").write_text("from tests.conversion.test_several_inputs import Two\n")
    assert spikeport.check(f"{tmp_path / 'nets.py'}:Two", input_shape=(4, 6, 5)).ok


def two_inputs(path, shapes):
    """A file of two inputs, of which the second is multiplied and the first added."""
    nodes = [
        node("Mul", "y half", "z"),
        node("Concat", "x z", "c", axis=1),
        node("Conv", "c w", "out"),
    ]
    write(path, nodes, shapes[0], {"half": np.float32(0.5), "w": WEIGHT}, outputs=("out",))
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("y", 1, shapes[1]))
    onnx.save(model, path)
    return path


WEIGHT = np.random.default_rng(1).normal(size=(2, 4, 3, 3)).astype(np.float32)


def test_onnx(tmp_path):
    path = two_inputs(tmp_path / "net.onnx", [["N", 3, 6, 5], ["N", 1, 6, 5]])
    check = spikeport.check(path)
    assert check.ok, check.obstacles
    assert check.input_shape == (4, 6, 5)
    assert "in this order: x (3), y (1)" in check.notes[0]
    x = np.random.default_rng(0).normal(size=(3, 4, 6, 5)).astype(np.float32)
    session = ort.InferenceSession(str(path))
    (expected,) = session.run(None, {"x": x[:, :3], "y": x[:, 3:]})
    with torch.no_grad():
        np.testing.assert_allclose(open_onnx(path)(torch.from_numpy(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "shapes", [[["N", 3, 6, 5], ["N", 1, 6, 6]], [["N", 3, 6, 5], ["N", "C", 6, 5]]]
)
def test_onnx_files_that_are_refused(tmp_path, shapes):
    with pytest.raises(UnsupportedModuleError, match=r"(?s)several inputs.*x .*, y "):
        spikeport.check(two_inputs(tmp_path / "net.onnx", shapes))
