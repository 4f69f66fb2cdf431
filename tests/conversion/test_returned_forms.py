"""The form in which a network returns its outputs: flattened, squeezed, one number per sample.

The oracle is the module itself, run by torch in float64, and its predictions in float32.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spikeport
from tests.forwards import SHAPE, Net, act, assert_converts
from toolchain.conversion.float_values import check_against_module, node_values
from toolchain.conversion.frontend.trace import traced, traced_with_obstacles
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Linear


def pixel(classes=5):
    """Layers whose last, `head`, makes an image of one pixel."""
    return {
        "conv": nn.Conv2d(4, 6, 3, padding=1),
        "act": act(),
        "head": nn.Conv2d(6, classes, SHAPE[1:]),
    }


FORMS = {
    "flatten": lambda x: x.flatten(1),
    "view": lambda x: x.view(len(x), -1),
    "squeeze": lambda x: x.squeeze(),
    "squeeze-twice": lambda x: x.squeeze(3).squeeze(2),
    "getitem": lambda x: x[:, :, 0, 0],
    "mean": lambda x: x.mean((2, 3)),
    "softmax": lambda x: F.softmax(x.flatten(1), 1),
    "softmax-before": lambda x: torch.softmax(x, 1).flatten(1),
    "sigmoid-before": lambda x: torch.sigmoid(x)[:, :, 0, 0],
    "relu-before": lambda x: torch.relu(x).squeeze(),
    "reordered": lambda x: x.flatten(1)[:, [3, 1, 0, 4, 2]],
    "reordered-softmax": lambda x: F.softmax(x.flatten(1).flip(1), 1),
    "log-softmax-views": lambda x: F.log_softmax(x, 1).squeeze(3).squeeze(2),
}


@pytest.mark.parametrize("form", FORMS)
def test_flattened_pixels_are_a_vector(form):
    model = Net(lambda m, x: FORMS[form](m.head(m.act(m.conv(x)))), **pixel())
    program, _ = assert_converts(model)
    (name,) = program.outputs
    assert isinstance(program.node(name), Linear)
    assert len(program.node(name).weight) == 5


def test_some_of_the_logits_are_one_layer():
    model = Net(lambda m, x: m.head(m.act(m.conv(x)))[:, 1:4, 0, 0], **pixel())
    program, _ = assert_converts(model)
    assert [len(n.weight) for n in program.nodes if isinstance(n, Linear)] == [3]


def test_an_image_of_one_pixel_stays_an_image():
    model = Net(lambda m, x: m.head(m.act(m.conv(x))), **pixel())
    program, _ = assert_converts(model)
    assert not isinstance(program.node(program.outputs[0]), Linear)


def test_a_vector_beside_what_reads_it():
    layers = pixel() | {"second": act(), "fc": nn.Linear(5, 3)}

    def forward(m, x):
        y = m.head(m.act(m.conv(x))).flatten(1)
        return y, m.fc(m.second(y))

    program, _ = assert_converts(Net(forward, **layers))
    assert [len(program.node(name).weight) for name in program.outputs] == [5, 3]


def assert_checked(model, shape, samples):
    found = traced(model, shape)
    check_against_module(model, found.program, torch.rand(samples, *shape), found.left_out)


ONE_NUMBER = {
    "squeeze-1": lambda x: x.squeeze(1),
    "squeeze-last": lambda x: x.squeeze(-1),
    "column": lambda x: x[:, 0],
    "flatten": lambda x: x.flatten(),
    "sigmoid-squeeze": lambda x: torch.sigmoid(x).squeeze(1),
    "sigmoid-column": lambda x: torch.sigmoid(x)[:, 0],
    "relu-view": lambda x: torch.relu(x).view(-1),
}


@pytest.mark.parametrize("form", ONE_NUMBER)
def test_one_number_per_sample(form):
    layers = {"fc": nn.Linear(8, 6), "act": act(), "head": nn.Linear(6, 1)}
    model = Net(lambda m, x: ONE_NUMBER[form](m.head(m.act(m.fc(x)))), **layers)
    assert_converts(model, (8,))
    assert_checked(model.float(), (8,), 5)


def returning(last, is_image):
    """A network that returns `last` of its four logits, flattened, and the shape of its samples."""
    layers, shape = {"fc": nn.Linear(8, 6), "act": act(), "head": nn.Linear(6, 4)}, (8,)
    if is_image:
        layers, shape = pixel(4), SHAPE
    first = next(iter(layers))
    return Net(lambda m, x: last(m.head(m.act(getattr(m, first)(x))).flatten(1)), **layers), shape


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x[:, 2],
        lambda x: x.select(1, -1),
        lambda x: x[:, 1].sigmoid(),
        lambda x: x[:, 1:2].squeeze(1),
    ],
)
@pytest.mark.parametrize("is_image", [False, True])
def test_one_of_several_logits(forward, is_image):
    model, shape = returning(forward, is_image)
    program, _ = assert_converts(model, shape)
    assert len(program.node(program.outputs[0]).weight) == 1
    assert_checked(model.float(), shape, 5)


@pytest.mark.parametrize(
    "behind",
    [
        lambda x: x.contiguous(),
        lambda x: x.detach().clone(),
        lambda x: x.float(),
        lambda x: F.dropout(x, 0.5, training=False).flatten(1),
    ],
)
def test_what_does_nothing_may_follow_the_last_function(behind):
    layers = {"fc": nn.Linear(8, 6), "act": act(), "head": nn.Linear(6, 4)}
    model = Net(lambda m, x: behind(torch.softmax(m.head(m.act(m.fc(x))), 1)), **layers)
    _, notes = assert_converts(model, (8,))
    assert any("the last function of the network is left out" in note for note in notes)
    assert_checked(model.float(), (8,), 5)


@pytest.mark.parametrize("reorder", [lambda x: x.flip(1), lambda x: x[:, [3, 1, 0, 2]]])
@pytest.mark.parametrize("is_image", [False, True])
def test_reordered_logits_are_those_of_the_network(reorder, is_image):
    model, shape = returning(lambda x: torch.softmax(reorder(x), 1), is_image)
    program, _ = assert_converts(model, shape)
    samples = torch.rand(50, *shape).double()
    logits = node_values(program, samples, clipped=())[program.outputs[0]]
    assert torch.equal(logits.argmax(1), model(samples).argmax(1))


def test_logits_reordered_behind_the_last_function_are_refused():
    layers = {"fc": nn.Linear(8, 6), "act": act(), "head": nn.Linear(6, 4)}
    model = Net(lambda m, x: torch.softmax(m.head(m.act(m.fc(x))), 1).flip(1), **layers)
    with pytest.raises(UnsupportedModuleError, match="another order behind"):
        traced(model, (8,))
    _, obstacles = traced_with_obstacles(model, (8,))
    assert len(obstacles) == 1


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_a_network_that_squeezes_is_checked_sample_by_sample(samples):
    """`squeeze` drops the axis of a single sample, which is how the module is run."""
    model = Net(lambda m, x: m.head(m.act(m.conv(x))).squeeze(), **pixel())
    assert_checked(model, SHAPE, samples)


@pytest.mark.parametrize("rectified", [True, False], ids=["as-SqueezeNet", "without-ReLU"])
def test_fully_convolutional_classifiers_have_classes(rectified):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1)]
    layers += [nn.ReLU()] if rectified else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    samples = torch.rand(64, 3, 6, 6)
    recording = spikeport.run(spikeport.convert(model, calibrate=samples), samples)
    with torch.no_grad():
        wanted = model(samples).argmax(1).numpy()
    assert recording.outputs.keys() == {str(len(model) - 1)}
    assert (recording.predictions == wanted).mean() > 0.8
