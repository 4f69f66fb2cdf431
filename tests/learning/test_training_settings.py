"""Settings files, recipes, schedules, devices and what a wrong setting says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.errors import CheckpointError, DataError
from toolchain.learning.training.checkpoint import make_model
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.config_file import read_settings, write_settings
from toolchain.learning.training.device import choose_device
from toolchain.learning.training.optimizer import descent_of
from toolchain.learning.training.recipes import RECIPES

FULL = TrainConfig(
    data="imagefolder:a b.zip",
    model="resnet20",
    activation="cqrelu",
    width=0.3,
    pooling="max",
    levels=8,
    learning_rate=0.1,
    schedule="onecycle",
    label_smoothing=0.1,
    augment=("crop", "flip"),
    fixed_noise=0.05,
    train_limit=77,
    mean=(128 / 255,),
    std=(0.25, 0.5, 1.0),
    seed=3,
)


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".yml"])
@pytest.mark.parametrize("config", [FULL, TrainConfig(data="digits")], ids=["full", "defaults"])
def test_settings_files_round_trip(tmp_path, config, suffix):
    path = tmp_path / f"config{suffix}"
    write_settings(config.as_dict(), path)
    assert TrainConfig.from_dict(read_settings(path)) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_settings(name):
    config = TrainConfig.from_dict({"data": "digits", **RECIPES[name]})
    assert TrainConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.toml", "epochs = ", DataError, "not a readable settings file"),
        ("a.yaml", "a: [", DataError, "not a readable settings file"),
        ("a.yaml", "- 1", DataError, "a table of names and values"),
        ("a.json", "{}", DataError, "TOML or YAML"),
        ("a.toml", "epoch = 3", CheckpointError, r"unknown training settings\n.*epoch"),
        ("a.toml", 'epochs = "3"', CheckpointError, "epochs: a setting has the wrong type"),
        ("a.toml", "epochs = 3.5", CheckpointError, "epochs: a setting has the wrong type"),
        ("a.yaml", "epochs: true", CheckpointError, "epochs: a setting has the wrong type"),
        ("a.toml", 'augment = "crop"', CheckpointError, "augment: a setting has the wrong type"),
        ("a.toml", "mean = [true]", CheckpointError, "mean: a setting has the wrong type"),
        ("a.toml", "levels = 0", DataError, "levels must lie in"),
        (
            "a.toml",
            "calibration_steps = 0",
            DataError,
            r"calibration_steps must lie in \[1, 1024\]",
        ),
        ("a.toml", 'schedule = "linear"', DataError, "no such schedule"),
        ("a.toml", 'calibration = "lava"', DataError, "no such calibration"),
        ("a.toml", "label_smoothing = 1.0", DataError, r"label_smoothing must lie in \[0, 1\)"),
        ("a.toml", "fixed_noise = -0.1", DataError, "fixed_noise must lie in"),
    ],
)
def test_wrong_settings(tmp_path, name, text, error, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(error, match=message):
        TrainConfig.from_dict({"data": "digits", **read_settings(path)})


def test_a_missing_settings_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_settings(tmp_path / "no.toml")


def test_whole_numbers_stand_for_floats(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("learning_rate: 1\nstd: [1, 2]\n")
    config = TrainConfig.from_dict({"data": "digits", **read_settings(path)})
    assert config == replace(TrainConfig(data="digits"), learning_rate=1.0, std=(1.0, 2.0))
    assert isinstance(config.learning_rate, float)


def rates(config, batches):
    """Learning rates by epoch and batch."""
    descent, seen = descent_of(config, nn.Linear(1, 1), batches), []
    for _ in range(config.epochs):
        seen.append([])
        for batch in range(batches):
            seen[-1].append(descent.rate)
            descent.step(batch)
    return np.array(seen)


def test_schedules_by_their_formulas():
    config = TrainConfig(data="digits", epochs=10, learning_rate=0.3)
    steps = np.arange(70).reshape(10, 7) / 70
    assert rates(config, 7) == pytest.approx(0.15 * (1 + np.cos(np.pi * steps)))
    by_epoch = replace(config, schedule="epoch-cosine")
    expected = 0.15 * (1 + np.cos(np.pi * np.arange(10) / 10))
    assert rates(by_epoch, 7) == pytest.approx(np.repeat(expected[:, None], 7, axis=1))
    warmed = rates(replace(by_epoch, warm_up=5), 7)
    assert warmed[:6, 0] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3, 0.3])
    assert warmed[5:, 6] == pytest.approx(0.15 * (1 + np.cos(np.pi * np.arange(5) / 5)))
    by_step = rates(replace(config, schedule="step", epochs=8, warm_up=2), 7).ravel()
    expected = np.concatenate(
        (0.3 * np.arange(1, 15) / 14, np.repeat([0.3, 0.03, 0.003], [14, 14, 14]))
    )
    assert by_step == pytest.approx(expected)
    cycle = rates(replace(config, schedule="onecycle"), 7).ravel()
    assert cycle[0] == pytest.approx(0.3 / 25)
    assert cycle.max() == pytest.approx(0.3)
    assert cycle.argmax() == 20
    assert cycle[-1] == pytest.approx(0.3 / 25 / 1e4)


def test_adamw_by_its_formulas():
    config = TrainConfig(
        data="digits", optimizer="adamw", learning_rate=0.01, weight_decay=0.1, momentum=0.8
    )
    layer = nn.Linear(1, 1, bias=False)
    weight = layer.weight.item()
    descent, first, second = descent_of(config, layer, 5), 0.0, 0.0
    for step in range(1, 6):
        gradient, rate = float(step), descent.rate
        layer.weight.grad = torch.full((1, 1), gradient)
        descent.step(step - 1)
        first = 0.8 * first + 0.2 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight -= rate * 0.1 * weight
        weight -= rate * (first / (1 - 0.8**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        assert layer.weight.item() == pytest.approx(weight, rel=1e-5)


def test_the_papers_recipes():
    paper = TrainConfig.from_dict({"data": "digits", **RECIPES["paper"]})
    epochs = rates(paper, 2)
    assert epochs[:, 0] == pytest.approx(0.025 * (1 + np.cos(np.pi * np.arange(400) / 400)))
    assert (paper.momentum, paper.weight_decay, paper.levels) == (0.9, 5e-4, 4)
    assert (paper.initial_threshold, paper.calibration_steps) == (8.0, 4)
    casc = TrainConfig.from_dict({"data": "digits", **RECIPES["casc"]})
    assert (casc.activation, casc.levels, casc.epochs) == ("cqrelu", 8, 300)
    assert rates(casc, 1).max() == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "lenet"])
def test_initial_weights_as_torch_draws_them(name):
    """Each layer's weights lie evenly within 1 / sqrt(inputs), as torch documents."""
    config = TrainConfig(data="digits", model=name, width=0.25, initial_weights="torch")
    model = make_model(config, (3, 32, 32), 10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            assert float(layer.weight.detach().abs().max()) <= bound
            assert float(layer.weight.detach().abs().max()) > 0.8 * bound
    he = make_model(replace(config, initial_weights="he"), (3, 32, 32), 10)
    assert all(torch.isfinite(p).all() for p in he.parameters())


def test_devices():
    assert choose_device("cpu", "float32").name.startswith("cpu float32, ")
    assert choose_device("cpu", "bf16").bf16
    with pytest.raises(DataError, match="no such device"):
        choose_device("tpu")
    with pytest.raises(DataError, match="no such precision"):
        choose_device("cpu", "int4")
    if not torch.cuda.is_available():
        assert choose_device("auto").device.type == "cpu"
        with pytest.raises(DataError, match="no CUDA device"):
            choose_device("cuda")
