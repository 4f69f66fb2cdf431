"""Training on sequences: the network gets their means, its spiking form a tensor in each step."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from tests.command_line import here
from toolchain.errors import CheckpointError, DataError
from toolchain.learning.activations import QCFS, ActivationMode
from toolchain.learning.data import input_spikes, open_split
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import normalised
from toolchain.learning.training.noise import compare_with_spiking, run_spiking
from toolchain.learning.training.train_classifier import train

STEPS = 5
SMALL = {
    "data": "moving-shapes",
    "width": 0.25,
    "epochs": 1,
    "train_limit": 200,
    "initial_threshold": 0.3,
    "batch_size": 20,
    "levels": 8,
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        QCFS(4, 1.5),
        nn.Flatten(),
        nn.Linear(48, 6),
        QCFS(4, 0.7),
        nn.Linear(6, 3),
    ).eval()


def frames(count=7, seed=0):
    """Tensors that differ from step to step, (N, T, 2, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(count, STEPS, 2, 6, 6, generator=generator)
        * torch.arange(1, STEPS + 1)[:, None, None, None]
    )


def fire(currents, lam):
    """What IF neurons send, step by step; they start at half a threshold."""
    v, sent = torch.full_like(currents[0], lam / 2), []
    for current in currents:
        v = v + current
        sent.append((v >= lam) * lam)
        v = v - sent[-1]
    return sent


def by_hand(model, x):
    """Means of what both activations send over the steps, and the summed outputs."""
    first, second = (m.threshold.item() for m in model if isinstance(m, QCFS))
    with torch.no_grad():
        a = fire([model[0](x[:, step]) for step in range(STEPS)], first)
        b = fire([model[3](s.flatten(1)) for s in a], second)
        return sum(a) / STEPS, sum(b) / STEPS, sum(model[5](s) for s in b)


def test_a_spiking_network_gets_one_tensor_in_each_step():
    model, x = net(), frames()
    rates, logits = run_spiking(model, x, STEPS, per_step=True)
    first, second, expected = by_hand(model, x)
    assert torch.allclose(rates["1"], first, atol=1e-6)
    assert torch.allclose(rates["4"], second, atol=1e-6)
    assert torch.allclose(logits, expected, atol=1e-5)
    constant = x[:, :1].expand(-1, STEPS, -1, -1, -1)
    same, static = (
        run_spiking(model, given, STEPS, per_step=flag)[1]
        for given, flag in ((constant, True), (x[:, 0], False))
    )
    assert torch.equal(same, static)
    with pytest.raises(DataError, match="one tensor for each step"):
        run_spiking(model, x, STEPS + 1, per_step=True)


def test_residual_errors_are_those_against_the_mean():
    model, x = net(), frames(20)
    compared = compare_with_spiking(model, [x], STEPS, per_step=True)
    first, _, expected = by_hand(model, x)
    with torch.no_grad():
        quantized = model[1](model[0](x.mean(1)))
        assert torch.allclose(compared.quantized, model(x.mean(1)))
    assert torch.allclose(compared.spiking, expected, atol=1e-5)
    gap = float((quantized - first).var(unbiased=False)) ** 0.5
    assert compared.residual_std["1"] == pytest.approx(gap, rel=1e-4)


def test_own_errors_are_those_of_the_frames():
    model, x = net(), frames()
    with spikeport.own_errors(model, STEPS, per_step=True):
        outputs = model(x)
    assert torch.allclose(outputs * STEPS, by_hand(model, x)[2], atol=1e-5)
    outputs.sum().backward()
    assert model[0].weight.grad.abs().sum() > 0


def test_moving_shapes():
    train_set, test = open_split("moving-shapes@train"), open_split("moving-shapes@test")
    assert train_set.sample_shape == test.sample_shape == (8, 2, 16, 16)
    assert (len(train_set), len(test)) == (2000, 400)
    assert test.class_names == ("right", "left", "down", "up")
    assert np.bincount(test.labels).tolist() == [100] * 4
    assert np.array_equal(test.samples, open_split("moving-shapes@test").samples)
    assert not np.array_equal(train_set.samples[:400], test.samples)
    # The middle of the events moves as the class says, from the first half to the second.
    halves = test.samples.reshape(400, 2, 4, 2, 16, 16).sum((2, 3))
    places = np.arange(16)
    x, y = halves.sum(2) @ places, halves.sum(3) @ places
    moved = [np.diff(m / halves.sum((2, 3)), axis=1)[:, 0] for m in (x, y)]
    for label, (axis, sign) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1))):
        of_class = test.labels == label
        assert (sign * moved[axis][of_class] > 0).mean() > 0.95
        assert np.abs(moved[axis][of_class]).mean() > 3 * np.abs(moved[1 - axis][of_class]).mean()
    with pytest.raises(DataError, match="take no path"):
        open_split("moving-shapes:here")


@pytest.mark.parametrize(
    "how",
    [
        {"activation": "nq"},
        {"activation": "nq", "calibration": "integer"},
        {"activation": "qcfs", "errors": "own"},
        {"activation": "cqrelu"},
        {"activation": "relu"},
    ],
    ids=lambda how: "-".join(how.values()),
)
def test_every_way_of_training(how, tmp_path, limits):
    config = TrainConfig(**{**SMALL, **how, "mean": (0.01, 0.02), "std": (0.05, 0.1)})
    checkpoint = train(config, tmp_path / "run", limits=limits)
    again = load_checkpoint(tmp_path / "run")
    assert checkpoint.frames == again.frames == 8
    assert again.sample_shape == (2, 16, 16)
    assert again.quantizer().per_step
    assert again.quantizer() == checkpoint.quantizer()
    assert json.loads((tmp_path / "run/checkpoint.json").read_text())["format_version"] == 2
    data = open_split("moving-shapes@train")
    real = normalised(data.take(slice(0, 5)), config.mean, config.std)
    mean, std = (np.array(v).reshape(2, 1, 1) for v in ((0.01, 0.02), (0.05, 0.1)))
    expected = (data.samples[:5] - mean) / std
    assert np.allclose(real.numpy(), expected, atol=1e-6)


def test_the_held_out_accuracies_are_those_of_means_and_frames(tmp_path):
    """Measured again from the checkpoint, by torch's own forward and the plain loop's IF."""
    run = tmp_path / "run"
    config = TrainConfig(**{**SMALL, "activation": "qcfs", "train_limit": 400, "epochs": 3})
    checkpoint = train(config, run)
    data = open_split("moving-shapes@test")
    with torch.no_grad():
        wanted = checkpoint.model(torch.from_numpy(data.real()).mean(1)).argmax(1).numpy()
    made = spikeport.convert(run, calibrate="moving-shapes@train[:64]")
    assert np.array_equal(input_spikes(made.program.input, data), data.samples)
    assert made.program.schedule.wake_steps == 8
    assert spikeport.convert(run).program.schedule.wake_steps == 8
    report = spikeport.audit(made, "moving-shapes", network=run, lava_samples=0)
    described = report.document["versions"]["accuracy"]["quantized network"]
    assert described["correct"] == (wanted == data.labels).sum()


def test_levels_of_cif_are_the_tensors_of_a_sequence(tmp_path):
    config = TrainConfig(**{**SMALL, "activation": "cqrelu", "levels": 4})
    with pytest.raises(DataError, match=r"(?s)as many wake steps.*8 tensors, 4 levels.*levels=8"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_and_another_start(tmp_path):
    first = TrainConfig(**SMALL, activation="qcfs")
    train(first, tmp_path / "first")
    second = TrainConfig(
        **SMALL, activation="nq", teacher=str(tmp_path / "first"), init=str(tmp_path / "first")
    )
    assert train(second, tmp_path / "second").frames == 8


def test_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--width", "0.25", "--epochs", "2", "--limit", "400", "--levels", "8")
    how = ("--activation", "cqrelu", "--std", "0.05", "--data", "moving-shapes", *options)
    assert here("train", *how, "--out", "run").exit_code == 0
    assert here("convert", "run", "--neuron", "cif", "-o", "a.net").exit_code == 0
    ended = here("run", "a.net", "--data", "moving-shapes@test[:20]", "-o", "a.npz", "--json")
    assert ended.exit_code == 0
    measured = here("evaluate", "a.net", "--data", "moving-shapes@test[:20]", "-o", "a.json")
    assert measured.exit_code == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    whole = [row["accuracy"]["accuracy"] for row in rows if row["neuron"] == "CIF + sleep"]
    assert whole == [json.loads(ended.stdout)["accuracy"]]
    assert here("evaluate", "run", "--data", "moving-shapes@test[:20]").exit_code == 0
    kept = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert [row["accuracy"]["accuracy"] for row in kept["rows"] if row["steps"]][-1:] == whole
    refused = here("evaluate", "run", "--data", "digits", "-o", "e.json")
    assert "another shape" in str(refused.error)
    refused = here("train", *how, "--augment", "flip", "--out", "other")
    assert isinstance(refused.error, DataError)


def test_readers_of_version_1_know_no_sequences(tmp_path):
    train(TrainConfig(**SMALL, activation="qcfs"), tmp_path / "run")
    file = tmp_path / "run/checkpoint.json"
    text = file.read_text()
    file.write_text(text.replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(CheckpointError, match=r"(?s)unknown checkpoint version.*allowed: *1, 2"):
        load_checkpoint(tmp_path / "run")


def test_modes_stay_as_they_were():
    model = net()
    run_spiking(model, frames(), STEPS, per_step=True)
    assert all(m.mode is ActivationMode.QUANTIZED for m in model if isinstance(m, QCFS))
