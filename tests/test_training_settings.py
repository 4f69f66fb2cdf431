"""Settings files, recipes, schedules, devices and what a wrong setting says."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from toolchain.errors import CheckpointError, DataError
from toolchain.training.config import TrainConfig
from toolchain.training.config_file import read_settings, write_settings
from toolchain.training.device import choose_device
from toolchain.training.recipes import RECIPES
from toolchain.training.schedule import cosine, one_cycle

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
        ("a.toml", "levels = 0", DataError, "levels must be positive"),
        ("a.toml", "calibration_steps = 0", DataError, "calibration_steps must be positive"),
        ("a.toml", 'schedule = "step"', DataError, "no such schedule"),
        ("a.toml", 'calibration = "lava"', DataError, "no such calibration"),
        ("a.toml", "label_smoothing = 1.0", DataError, r"label_smoothing must lie in \[0, 1\)"),
        ("a.toml", "fixed_noise = -0.1", DataError, "fixed_noise must not be negative"),
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


def rates(scheduler_of, steps, peak):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], peak)
    scheduler = scheduler_of(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_schedules_are_torchs():
    steps, peak = 101, 0.3
    expected = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps), steps, peak)
    assert [cosine(peak, i / steps) for i in range(steps)] == pytest.approx(expected)
    expected = rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, peak, total_steps=steps, pct_start=31 / 101
        ),
        steps,
        peak,
    )
    # torch counts from the first to the last step and puts the peak one step before its share.
    found = [one_cycle(peak, i / (steps - 1)) for i in range(steps)]
    assert found == pytest.approx(expected)


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
