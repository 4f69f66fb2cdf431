"""Settings that cannot be meant, runs that fail, networks nobody gave weights: said, not done."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.command_line import FACTORIES, here
from tests.voc_files import write_voc
from toolchain.cli.param_types import divisors, positive_numbers, real_numbers
from toolchain.errors import CheckpointError, DataError, ProgramError, SpikeportError, TrainingError
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.train_detector import train_detector
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.failure import check_answers, check_finite
from toolchain.learning.training.settings import Bounds
from toolchain.learning.training.train_classifier import train
from toolchain.program.int_program import Schedule

CONFIG = TrainConfig(
    data="digits", model="mlp", epochs=2, initial_threshold=2.0, train_limit=300, seed=1
)
CONFIGS = (CONFIG, DetectorConfig(data="shapes"))


def bounds_of(config):
    return {name: rule for name, rule in config.rules().items() if isinstance(rule, Bounds)}


@pytest.mark.parametrize(("config", "name"), [(c, name) for c in CONFIGS for name in bounds_of(c)])
def test_every_number_has_bounds(config, name):
    bounds, many = bounds_of(config)[name], isinstance(getattr(config, name), tuple)
    outside = [bounds.low - 1, bounds.high + 1, float("nan"), float("inf"), -float("inf")]
    outside += [bounds.low] * bounds.open_low + [bounds.high] * bounds.open_high
    for value in outside:
        with pytest.raises(DataError, match=name):
            replace(config, **{name: (bounds.high, value) if many else value})
    assert bounds.high < float("inf")


@pytest.mark.parametrize(
    ("config", "others"),
    [(CONFIGS[0], {"augment", "calibration_augment"}), (CONFIGS[1], {"augment"})],
)
def test_no_number_is_without(config, others):
    numbers = {k for k, v in config.as_dict().items() if isinstance(v, int | float | list)}
    assert numbers - set(bounds_of(config)) == others


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "digits@test"}, "the test split is not for training"),
        ({"data": "digits@test[:100]"}, "the test split is not for training"),
        ({"mean": (0.1, 0.2)}, "mean needs one value"),
        ({"std": (1.0, 2.0, 3.0)}, "std needs one value"),
        ({"model": "alexnet"}, "no such model"),
        ({"calibration": "integer"}, "needs a target's limits"),
        ({"augment": ("crop",), "data": "npz:vectors.npz"}, "grey or RGB"),
    ],
)
def test_nothing_is_written_before_all_is_checked(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    np.savez(
        "vectors.npz",
        train_samples=np.zeros((40, 6), np.uint8),
        train_labels=np.arange(40) % 4,
    )
    with pytest.raises(SpikeportError, match=message):
        train(replace(CONFIG, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_of_detectors(tmp_path):
    write_voc(tmp_path / "set", {"train": 8, "test": 2})
    config = DetectorConfig(
        data=f"voc:{tmp_path}/set", input_size=(64, 96), width=0.125, batch_size=8, epochs=1
    )
    for change, message in (
        ({"data": f"{config.data}@test"}, "the test split is not for training"),
        ({"mean": (0.1, 0.2)}, "mean needs one value"),
    ):
        with pytest.raises(SpikeportError, match=message):
            train_detector(replace(config, **change), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    for change in ({"std": (0.0,)}, {"seed": -1}, {"warm_up": -1}, {"levels": 10**6}):
        with pytest.raises(DataError, match=next(iter(change))):
            replace(config, **change)


def test_a_diverging_run_ends_with_the_epoch_and_the_loss(tmp_path):
    config = replace(CONFIG, learning_rate=90.0, epochs=9, train_limit=None)
    with pytest.raises(TrainingError, match=r"(?s)epoch \d: training diverged.*loss") as caught:
        train(replace(config, weight_decay=1.0, momentum=0.99), tmp_path / "run")
    assert caught.value.exit_code == 1


def test_a_constant_network_is_no_result(tmp_path):
    with pytest.raises(TrainingError, match=r"(?s)epoch 1: .*the same output.*loss 2\.") as caught:
        train(replace(CONFIG, epochs=1, initial_threshold=9000.0), tmp_path / "run")
    assert caught.value.exit_code == 1


def test_what_counts_as_failed():
    history = [{"loss": 1.0}]
    same, other = torch.ones(3, 4), torch.ones(3, 4)
    other[2, 1] = 0
    check_answers([same, other], history)
    check_answers([same[:1]], history)
    with pytest.raises(TrainingError, match="the same output"):
        check_answers([same, 2 * same], history)
    check_finite({"loss": 1.0}, 0)
    for value in (float("nan"), float("inf")):
        with pytest.raises(TrainingError, match="epoch 4: training diverged: sigma/a"):
            check_finite({"loss": 1.0, "sigma/a": value}, 3)


def test_other_data_do_not_continue_a_run(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 256, (60, 6)).astype(np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, train_samples=samples, train_labels=np.arange(60) % 3)
    config = replace(CONFIG, data=f"npz:{path}", activation="relu")
    train(config, tmp_path / "run")
    np.savez(path, train_samples=samples, train_labels=np.arange(60) % 4)
    with pytest.raises(CheckpointError, match="a run on other data"):
        train(config, tmp_path / "run")


def test_a_run_killed_between_its_two_files_says_what_mends_it(tmp_path):
    folder = tmp_path / "run"
    train(CONFIG, folder)
    good = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"killed between.*train --config .*mends it"):
        load_checkpoint(folder)
    train(CONFIG, folder)
    assert (folder / "model.safetensors").read_bytes() == good


def test_a_state_of_an_earlier_version_says_what_to_do(tmp_path):
    state = {"config": CONFIG.as_dict(), "epoch": 1, "best_epoch": 1, "history": []}
    kept = {"state": json.dumps(state)}
    save_file({"model/a": torch.zeros(2)}, tmp_path / "last.safetensors", kept)
    with pytest.raises(CheckpointError, match=r"(?s)earlier version.*remove last.safetensors"):
        train(CONFIG, tmp_path)


def test_steps_have_a_ceiling_with_its_reason():
    assert Schedule(1 << 16, 1 << 16).num_steps == 1 << 17
    for wake, sleep in ((10**9, 0), (4, 10**9)):
        with pytest.raises(ProgramError, match=r"(?s)too many steps.*16 bits"):
            Schedule(wake, sleep)
    assert positive_numbers("--steps", "65536,1") == (65536, 1)
    with pytest.raises(DataError, match=r"(?s)--steps: .*too large.*16 bits"):
        positive_numbers("--steps", "1,1000000000")


def test_one_reading_of_mean_and_std():
    assert real_numbers("--mean", "128/255, -1,1e-3") == (128 / 255, -1.0, 0.001)
    for text in ("a", "", "1/0", "nan", "inf", "1e999", "1,,2"):
        with pytest.raises(DataError, match="--mean"):
            real_numbers("--mean", text)
    for text in ("0", "-1", "1,0"):
        with pytest.raises(DataError, match="--std: every number must be positive"):
            divisors("--std", text)


def test_a_network_without_weights_is_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FACTORIES)
    how = ["--input-shape", "1,8,8", "--std", "1/2", "--mean", "128/255", "--json"]
    result = here("convert", "nets.py:good", "-o", "a.net", *how)
    assert result.exit_code == 0, result.output
    assert "no --weights were given" in json.loads(result.stdout)["notes"][0]
    torch.manual_seed(0)
    space = {}
    exec(FACTORIES, space)
    torch.save(space["good"]().state_dict(), "w.pt")
    result = here("convert", "nets.py:good", "-o", "b.net", "--weights", "w.pt", *how)
    assert not any("--weights" in note for note in json.loads(result.stdout)["notes"])
