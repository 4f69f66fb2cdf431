"""Networks that take their images otherwise: channels last, as vectors, as sequences."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spikeport
from tests.branched_modules import randomise
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.input_form import of_images
from toolchain.conversion.frontend.trace import trace
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import QCFS


class Net(nn.Module):
    """What `before` makes of the samples, and layers behind it."""

    def __init__(self, before, channels=3, conv=nn.Conv2d):
        super().__init__()
        self.before, self.conv = before, conv(channels, 4, 3, padding=1)
        self.act, self.head = QCFS(4, 1.0), nn.LazyLinear(3)

    def forward(self, x):
        return self.head(self.act(self.conv(self.before(x))).flatten(1))


MEAN = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
FORMS = {
    "channels last": ((6, 5, 3), (3, 6, 5), lambda x: x.permute(0, 3, 1, 2)),
    "by two transpositions": ((6, 5, 3), (3, 6, 5), lambda x: x.transpose(1, 3).transpose(2, 3)),
    "normalised before": ((6, 5, 3), (3, 6, 5), lambda x: ((x - MEAN) / 0.2).permute(0, 3, 1, 2)),
    "padded": ((6, 5, 3), (3, 6, 5), lambda x: F.pad(torch.permute(x, (0, 3, 1, 2)), (0, 1, 2, 0))),
    "scaled behind": ((6, 5, 3), (3, 6, 5), lambda x: 1 - x.movedim(3, 1).contiguous() / 255),
    "read twice": ((6, 5, 3), (3, 6, 5), lambda x: x.permute(0, 3, 1, 2) + x.permute(0, 3, 1, 2)),
    "rows and columns": ((3, 6, 5), (3, 5, 6), lambda x: x.transpose(2, 3)),
    "a vector": ((90,), (3, 6, 5), lambda x: x.view(-1, 3, 6, 5)),
    "as they are": ((3, 6, 5), (3, 6, 5), lambda x: x),
}


@pytest.mark.parametrize(("shape", "image", "before"), FORMS.values(), ids=FORMS)
def test_images(shape, image, before):
    model = Net(before).double()
    samples = torch.rand(5, *shape, dtype=torch.float64)
    model(samples)
    randomise(model)
    taken, found, notes = of_images(model, shape)
    assert found == image
    assert (taken is model) == (shape == image) == (not notes)
    order = torch.arange(90.0).reshape(1, *shape)
    images = samples.reshape(5, -1)
    if not any(word in str(notes) for word in ("(90,)",)) and shape != image:
        kept = before(order) if shape == (3, 6, 5) else order.permute(0, 3, 1, 2)
        images = images[:, kept.reshape(-1).long()]
    with torch.no_grad():
        expected = model(samples)
    assert torch.allclose(evaluate(trace(taken, image), images.reshape(5, *image)), expected)


@pytest.mark.parametrize(
    ("shape", "image", "before", "channels", "conv"),
    [
        ((3, 8), (3, 1, 8), lambda x: x, 3, nn.Conv1d),
        ((8, 3), (3, 1, 8), lambda x: x.permute(0, 2, 1), 3, nn.Conv1d),
        ((3, 8), (1, 3, 8), lambda x: x.unsqueeze(1), 1, nn.Conv2d),
        ((24,), (1, 24, 1), lambda x: F.pad(x[:, None, :, None], (0, 0, 2, 1)), 1, nn.Conv2d),
        ((24,), (1, 1, 24), lambda x: x[:, None], 1, nn.Conv1d),
        ((6, 4, 1), (1, 6, 4), lambda x: x.permute(0, 3, 1, 2), 1, nn.Conv2d),
    ],
)
def test_axes_of_size_one(shape, image, before, channels, conv):
    """The image's own shape is understood too, as an audit gives it."""
    model = Net(before, channels, conv).double()
    samples = torch.rand(5, *shape, dtype=torch.float64)
    model(samples)
    randomise(model)
    in_order = samples.transpose(1, 2) if shape == (8, 3) else samples
    with torch.no_grad():
        expected = model(samples)
    for given in (shape, image):
        taken, found, _ = of_images(model, given)
        assert found == image
        program = trace(taken, image)
        assert torch.allclose(evaluate(program, in_order.reshape(5, *image)), expected)


def test_from_samples_to_spikes():
    torch.manual_seed(0)
    model = Net(lambda x: x.permute(0, 3, 1, 2)).eval()
    x = np.random.default_rng(0).uniform(0, 1, (40, 8, 7, 3)).astype(np.float32)
    model(torch.from_numpy(x))
    images = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    for shape in ((8, 7, 3), None):  # the second: that of the samples
        conversion = spikeport.convert(
            model, input_shape=shape, calibrate=images, neuron="cif", steps=4, sleep_steps=20
        )
        assert conversion.program.input.shape == (3, 8, 7)
        assert any("samples are given as (channels" in note for note in conversion.notes)
        (found,) = spikeport.run(conversion, images).outputs.values()
        with torch.no_grad():
            assert (found.argmax(1) == model(torch.from_numpy(x)).argmax(1).numpy()).mean() > 0.9
    with pytest.raises(DataError, match=r"samples\.transpose\(0, 3, 1, 2\)"):
        spikeport.run(conversion, x)
    assert spikeport.check(model, input_shape=(8, 7, 3)).input_shape == (3, 8, 7)


def test_what_fails_is_said_for_the_given_shape():
    model = Net(lambda x: x.permute(0, 3, 1, 2)).eval()
    model(torch.rand(1, 6, 5, 3))
    assert of_images(model, (4, 6, 5)) == (model, (4, 6, 5), ())
    with pytest.raises(UnsupportedModuleError, match="another order"):
        spikeport.convert(model, input_shape=(4, 6, 5))
    assert of_images(nn.Sequential(nn.ReLU()), (4, 6, 5))[1] == (4, 6, 5)
