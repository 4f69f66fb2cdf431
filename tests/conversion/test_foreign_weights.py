"""State dicts under the names of torchvision and timm, in networks written out as theirs are."""

import pytest
import torch
from torch import nn

from tests.command_line import fails, ok
from toolchain.errors import CheckpointError
from toolchain.learning.models import build_model
from toolchain.learning.models.foreign_weights import under_our_names
from toolchain.learning.training.state_dict import load_weights

SIZE = 64
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


class TheirBlock(nn.Module):
    """torchvision's BasicBlock and Bottleneck, by its names."""

    def __init__(self, inputs, channels, stride, expansion):
        super().__init__()
        outputs = channels * expansion
        if expansion == 1:
            sizes = [(inputs, channels, 3, stride), (channels, channels, 3, 1)]
        else:
            sizes = [
                (inputs, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, outputs, 1, 1),
            ]
        self.count = len(sizes)
        for index, (a, b, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{index}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        skip = x if self.downsample is None else self.downsample(x)
        for index in range(1, self.count + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            x = torch.relu(x) if index < self.count else x
        return torch.relu(x + skip)


class TheirResNet(nn.Module):
    def __init__(self, name, classes):
        super().__init__()
        expansion = 4 if name == "resnet50" else 1
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(BLOCKS[name]):
            channels, blocks = 64 << stage, []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(TheirBlock(inputs, channels, stride, expansion))
                inputs = channels * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class TheirVGG(nn.Module):
    """torchvision's vgg11_bn; `timm` names the dense layers its way."""

    def __init__(self, classes, side, *, timm=False):
        super().__init__()
        layers, channels = [], 3
        for count in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
            if count:
                layers += [nn.Conv2d(channels, count, 3, padding=1), nn.BatchNorm2d(count)]
                layers.append(nn.ReLU())
                channels = count
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.timm = timm
        if timm:
            self.pre_logits = nn.Module()
            self.pre_logits.fc1 = nn.Conv2d(512, 4096, side)
            self.pre_logits.fc2 = nn.Conv2d(4096, 4096, 1)
            self.head = nn.Module()
            self.head.fc = nn.Linear(4096, classes)
        else:
            dense = [nn.Linear(512 * side * side, 4096), nn.ReLU(), nn.Dropout()]
            dense += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, classes)]
            self.classifier = nn.Sequential(*dense)

    def forward(self, x):
        x = self.features(x)
        if not self.timm:
            return self.classifier(x.flatten(1))
        x = torch.relu(self.pre_logits.fc2(torch.relu(self.pre_logits.fc1(x))))
        return self.head.fc(x.flatten(1))


def trained(model, seed=0):
    """Random statistics, so that every BatchNorm matters."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets(name, tmp_path):
    # From 128 pixels on the networks here begin as theirs do.
    torch.manual_seed(0)
    theirs = trained(TheirResNet(name, 7))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = build_model(name, (3, 128, 128), 7, nn.ReLU, pooling="max").eval()
    load_weights(ours, tmp_path / "x.pth")
    x = torch.randn(2, 3, 128, 128)
    expected = theirs(x)
    assert torch.allclose(ours(x), expected, atol=1e-4 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("timm", [False, True])
def test_vgg(timm, tmp_path):
    torch.manual_seed(0)
    theirs = trained(TheirVGG(5, 2, timm=timm))  # its convolutions have biases, ours none
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = build_model("vgg11", (3, SIZE, SIZE), 5, nn.ReLU, pooling="max").eval()
    load_weights(ours, tmp_path / "x.pth")
    x = torch.randn(2, 3, SIZE, SIZE)
    expected = theirs(x)
    assert torch.allclose(ours(x), expected, atol=1e-4 * float(expected.abs().max()))


def test_what_does_not_fit_is_listed(tmp_path):
    tensors = TheirResNet("resnet18", 7).state_dict()
    tensors["layer5.0.conv1.weight"] = torch.zeros(3)
    del tensors["layer2.1.bn2.weight"]
    tensors["fc.bias"] = torch.zeros(9)
    torch.save(tensors, tmp_path / "x.pth")
    model = build_model("resnet18", (3, 128, 128), 7, nn.ReLU, pooling="max")
    with pytest.raises(CheckpointError) as error:
        load_weights(model, tmp_path / "x.pth")
    text = str(error.value)
    assert "missing blocks.3.branch.4.weight" in text
    assert "unexpected layer5.0.conv1.weight" in text
    assert "classifier.bias has shape (9,), not (7,)" in text


def test_other_names_stay():
    tensors = {"encoder.weight": torch.zeros(2)}
    assert under_our_names(tensors).tensors.keys() == tensors.keys()


def test_convert_by_name(tmp_path):
    """A plain ReLU network under their names, with thresholds measured on data."""
    import numpy as np

    torch.manual_seed(0)
    torch.save(trained(TheirResNet("resnet18", 4)).state_dict(), tmp_path / "x.pth")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 3, 128, 128), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", train_samples=images, train_labels=np.zeros(16, int))
    how = ["--input-shape", "3,128,128", "--relu-percentile", "99.9", "--steps", "4"]
    data = ["--calibrate", "npz:d.npz", "--calibration-samples", "16"]
    made = ["convert", "model:resnet18", "-o", "x.net", "--weights", "x.pth"]
    found = ok(*made, *how, *data, cwd=tmp_path)
    assert "blocks.7.add" in found.stdout
    fails(2, "needs weights and an input shape", "convert", "model:resnet18", "-o", "x.net")
    fails(2, "no such model", *made[:1], "model:resnet19", *made[2:], *how, *data, cwd=tmp_path)
