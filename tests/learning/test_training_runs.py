"""Runs with everything switched on: augmentation, bf16, noise schedules, and being killed."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from toolchain.errors import CheckpointError, DataError
from toolchain.learning.activations import NQ
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.state_dict import read_tensors
from toolchain.learning.training.state_file import read_state
from toolchain.learning.training.train_classifier import train

CONFIG = TrainConfig(
    data="digits",
    model="lenet",
    width=0.25,
    epochs=3,
    batch_size=64,
    initial_threshold=2.0,
    schedule="onecycle",
    learning_rate=0.1,
    label_smoothing=0.1,
    augment=("crop", "flip", "autoaugment", "cutout"),
    precision="bf16",
    train_limit=200,
    mean=(8 / 16,),
    seed=2,
)


class Stop(Exception):
    """Raised in the middle of an epoch."""


def stop_in(epoch_to_stop):
    def progress(epoch, done, metrics):
        if epoch == epoch_to_stop and metrics is None:
            raise Stop

    return progress


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, precision="float32", calibration="integer"),
        replace(CONFIG, activation="cqrelu"),
        replace(
            CONFIG,
            activation="nq",
            precision="float32",
            schedule="epoch-cosine",
            warm_up=1,
            initial_threshold=1.0,
            initial_weights="torch",
            calibration_augment=True,
            train_limit=300,
        ),
        replace(CONFIG, activation="relu", pooling="max"),
        replace(CONFIG, optimizer="adamw", learning_rate=0.001, schedule="step", warm_up=1),
    ],
    ids=["bf16", "integer", "cqrelu", "epoch-cosine", "relu", "adamw-step"],
)
def test_resumed_to_the_same_bits(tmp_path, config, limits):
    whole = train(config, tmp_path / "whole", limits=limits)
    with pytest.raises(Stop):
        train(config, tmp_path / "parts", stop_in(1), limits)
    resumed = train(config, tmp_path / "parts", limits=limits)
    assert resumed.history == whole.history
    expected, found = (read_tensors(tmp_path / n / "last.safetensors") for n in ("whole", "parts"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_a_killed_process_loses_one_epoch_at_most(tmp_path):
    config = replace(CONFIG, epochs=6, train_limit=600)
    whole = train(config, tmp_path / "whole")
    settings, folder = tmp_path / "whole" / "config.toml", tmp_path / "killed"
    command = [sys.executable, "-m", "toolchain.cli", "train", "--config", str(settings)]
    command += ["--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(load_checkpoint(folder).history)
    assert 2 <= done < 6
    subprocess.run(command, check=True, capture_output=True)
    resumed = load_checkpoint(folder)
    assert resumed.history == whole.history
    assert resumed.tensors_sha256 == whole.tensors_sha256


def sigmas(history):
    return [{k: v for k, v in h.items() if k.startswith("sigma/")} for h in history]


def test_noise_starts_and_is_renewed_as_told(tmp_path):
    config = replace(CONFIG, epochs=5, noise_start=2, noise_every=2)
    history = train(config, tmp_path / "run").history
    found = sigmas(history)
    assert set(found[0].values()) == {0.0}
    assert found[1] == found[2] != found[3] == found[4]
    for epoch in (1, 3):
        for name, value in found[epoch].items():
            measured = history[epoch][name.replace("sigma/", "residual_std/")]
            assert value == pytest.approx(measured, rel=1e-6)
    assert any(value > 0 for value in found[1].values())


def test_noise_from_a_part_of_the_held_out_split(tmp_path):
    config = replace(CONFIG, augment=(), train_limit=900, calibration_samples=30)
    history = train(config, tmp_path / "run").history
    spiking = 30 * history[0]["held_out_spiking"]
    assert spiking == pytest.approx(round(spiking))
    whole = train(replace(config, calibration_samples=None), tmp_path / "whole").history
    assert history[0]["held_out_quantized"] == whole[0]["held_out_quantized"]
    assert sigmas(history)[0] != sigmas(whole)[0]


def test_fixed_noise_is_a_part_of_the_threshold(tmp_path):
    checkpoint = train(replace(CONFIG, fixed_noise=0.25), tmp_path / "run")
    activations = [m for m in checkpoint.model.modules() if isinstance(m, NQ)]
    assert activations
    for activation in activations:
        assert activation.sigma.item() == pytest.approx(0.25 * activation.threshold.item())


def test_the_log_tells_time_and_device(tmp_path):
    train(CONFIG, tmp_path / "run")
    lines = [json.loads(t) for t in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(line["seconds"] > 0 and "cpu bf16" in line["device"] for line in lines)
    assert all(0 <= line["train_accuracy"] <= 1 for line in lines)


def test_mean_on_the_grid_keeps_pixels_exact(tmp_path):
    """Centred pixels become signed graded spikes without rounding."""
    from spikeport.trained_network import network_of
    from toolchain.learning.data import open_split

    checkpoint = train(CONFIG, tmp_path / "run")
    quantizer = network_of(checkpoint, tmp_path / "run").quantizer
    data = open_split("digits@test")
    assert quantizer.signed
    assert np.array_equal(quantizer.quantize(data.real()), data.samples.astype(np.int32) - 8)


def test_what_augmentation_and_integer_noise_need(tmp_path):
    path = tmp_path / "v.npz"
    labels = np.arange(20) % 2
    np.savez(path, train_samples=np.zeros((20, 4), np.uint8), train_labels=labels)
    with pytest.raises(DataError, match="grey or RGB pixel images"):
        train(replace(CONFIG, data=f"npz:{path}", model="mlp"), tmp_path / "a")
    with pytest.raises(DataError, match="integer calibration needs a target's limits"):
        train(replace(CONFIG, calibration="integer"), tmp_path / "b")


def test_noise_from_samples_changed_as_in_training(tmp_path):
    """The accuracies stay those of the samples as they are, sigma does not."""
    config = replace(CONFIG, precision="float32", epochs=5, noise_start=5, train_limit=600)
    plain = train(config, tmp_path / "plain").history[-1]
    changed = train(replace(config, calibration_augment=True), tmp_path / "changed").history[-1]
    same = ("loss", "held_out_quantized", "held_out_spiking", "selection")
    assert [plain[k] for k in same] == [changed[k] for k in same]
    assert any(plain[k] != changed[k] for k in plain if k.startswith("sigma/"))
    with pytest.raises(DataError, match="do not lie on the grid"):
        replace(config, calibration_augment=True, calibration="integer")


def test_a_damaged_state_is_not_continued(tmp_path):
    """Whatever byte changes: tensors, their names and shapes, history, rates."""
    config = replace(CONFIG, precision="float32", epochs=2, train_limit=100, initial_threshold=1.0)
    data_sha256 = train(config, tmp_path / "run").data_sha256
    path = tmp_path / "run" / "last.safetensors"
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        at = int(rng.integers(len(data)))
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            read_state(tmp_path / "run", config, data_sha256)
    path.write_bytes(data)
    assert read_state(tmp_path / "run", config, data_sha256) is not None


NARROW = """
import torch
from torch import nn
from toolchain.learning.training.device import choose_device, laid_out

for channels in (2, 4, 7):
    model = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1, stride=2))
    choose_device("cpu", "float32").place(model)
    for _ in range(60):
        model(laid_out(torch.rand(16, 3, 18, 18), model)).square().sum().backward()
"""


def test_shortcuts_of_few_channels_leave_the_memory_whole():
    """In a process of its own: where gradients are written behind their end, it is killed."""
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
