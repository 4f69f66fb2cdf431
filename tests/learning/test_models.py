"""The model zoo: shapes, published sizes, and the way to integers and to Lava."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from exports.lava import run_on_lava
from exports.netx import read_net, write_net
from tests.oracles import closed_form
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import DataError
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.learning.models import MODELS, build_model
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.recording import compare
from toolchain.simulator.reference import simulate

IMAGE_MODELS = [name for name in MODELS if name != "mlp"]


def lively(name, shape, activation, width, pooling="average"):
    """A network with BatchNorm statistics from noise, so that every layer passes something on."""
    torch.manual_seed(1)
    model = build_model(name, shape, 10, activation, width, pooling)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(0.3)
        for _ in range(20):
            model.train()(torch.rand(8, *shape))
    return model.eval()


def image_quantizer(shape):
    return InputQuantizer.for_interval(shape, 0.0, 1.0, levels=255)


@pytest.mark.parametrize("size", [28, 32, 64, 224])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_takes_every_size(name, pooling, size):
    with torch.device("meta"):
        model = build_model(name, (3, size, size), 7, nn.ReLU, 0.25, pooling)
        assert model(torch.empty(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # He et al. count 0.27 M for ResNet-20; 1x1 shortcuts add 16*32 + 32*64 weights and their
        # BatchNorm's 2*(32 + 64).
        ("resnet20", 269722 + 16 * 32 + 32 * 64 + 2 * (32 + 64) + 19),
        # torchvision's ResNet-18 for 10 classes (11,181,642) with a 3x3 stem in place of 7x7.
        ("resnet18", 11181642 - 64 * 3 * (49 - 9) + 17),
        ("resnet34", 21289802 - 64 * 3 * (49 - 9) + 33),
        # Simonyan & Zisserman's convolutions (9,220,480 and 14,710,464 weights), BatchNorm (two a
        # channel) and dense layers 512-4096-4096-10.
        (
            "vgg11",
            9217728 + 2 * 2752 + 10 + 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 10 + 10,
        ),
        (
            "vgg16",
            14710464 + 2 * 4224 + 15 + 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 10 + 10,
        ),
    ],
)
def test_sizes_are_those_of_the_papers(name, parameters):
    """Trained numbers: weights, BatchNorm and one threshold per activation."""
    with torch.device("meta"):
        model = build_model(name, (3, 32, 32), 10, lambda: QCFS(4))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("size", "channels", "side"),
    [
        (16, (2, 16, 32), 4),
        (34, (2, 16, 32, 64), 5),
        (64, (2, 16, 32, 64), 8),
        (128, (2, 16, 32, 64, 64), 8),
    ],
)
def test_an_eventnet_for_each_sensor(size, channels, side):
    """Weights, BatchNorm's two a channel, and the dense layer behind `side` x `side` pixels."""
    with torch.device("meta"):
        model = build_model("eventnet", (2, size, size), 11, nn.ReLU)
        assert model(torch.empty(3, 2, size, size)).shape == (3, 11)
    layers = sum(9 * a * b + 2 * b for a, b in pairwise(channels))
    expected = layers + (channels[-1] * side * side + 1) * 11
    assert sum(p.numel() for p in model.parameters()) == expected


def test_wrong_images_and_pools():
    with pytest.raises(DataError, match="resnet18 takes images"):
        build_model("resnet18", (64,), 10, nn.ReLU)
    with pytest.raises(DataError, match="H and W >= 28"):
        build_model("vgg11", (3, 16, 16), 10, nn.ReLU)
    with pytest.raises(DataError, match="no such pooling"):
        build_model("vgg11", (3, 32, 32), 10, nn.ReLU, pooling="median")


@pytest.mark.parametrize(("size", "pooling"), [(28, "average"), (28, "max"), (64, "max")])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_model_settles_to_the_closed_form(name, pooling, size, limits):
    """Traced, folded, lowered and run: settled counts are those of the integers without time."""
    shape = (1, size, size)
    model = lively(name, shape, lambda: CQReLU(2), 1 / 16, pooling)
    options = ConversionOptions("cif", Schedule(2, 40))
    program = convert(model, image_quantizer(shape), options, limits, name=name).program
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (1, *shape)).astype(np.int32)
    recording = simulate(program, inputs)
    counts, logits = closed_form.counts_and_logits(program, inputs[0])
    assert sum(recording.meta["unsettled"].values()) == 0
    assert all(np.array_equal(recording.counts[n][0], counts[n]) for n in recording.counts)
    assert np.array_equal(recording.logits[0], logits)
    assert sum(bool(c.any()) for c in recording.counts.values()) > len(recording.counts) / 2


@pytest.mark.parametrize(("name", "pooling"), [("resnet20", "average"), ("vgg11", "max")])
def test_whole_networks_on_lava(name, pooling, limits, tmp_path):
    shape = (3, 28, 28)
    model = lively(name, shape, lambda: QCFS(2, 0.7), 1 / 8, pooling)
    options = ConversionOptions("if", Schedule(2))
    program = convert(model, image_quantizer(shape), options, limits, name=name).program
    write_net(program, tmp_path / "net.net")
    program = read_net(tmp_path / "net.net")
    inputs = np.random.default_rng(0).integers(0, 256, (2, *shape)).astype(np.int32)
    expected = simulate(program, inputs)
    comparison = compare(expected, run_on_lava(program, inputs))
    assert comparison.compared > 0
    assert comparison.mismatches == {}
    assert expected.counts[program.spiking[-1].name].any()
