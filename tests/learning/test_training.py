"""Training: seeded, resumable to the bit, held-out split, safe checkpoints."""

import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.errors import CheckpointError, DataError, OutputError
from toolchain.learning.activations import NQ, ActivationMode
from toolchain.learning.data import hold_out, open_split
from toolchain.learning.evaluation.float_network import spiking_logits
from toolchain.learning.training import train_classifier
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import accuracy, logits, normalised
from toolchain.learning.training.noise import compare_with_spiking
from toolchain.learning.training.state_dict import load_weights, read_tensors
from toolchain.learning.training.train_classifier import train

CONFIG = TrainConfig(
    data="digits", model="mlp", epochs=4, batch_size=256, initial_threshold=2.0, seed=5
)


def weights(folder):
    return read_tensors(folder / "last.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    from dataclasses import replace

    train(CONFIG, tmp_path / "a")
    train(CONFIG, tmp_path / "b")
    train(replace(CONFIG, seed=6), tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, stop_after):
    class Stop(Exception):
        pass

    def stop(epoch, done, metrics):
        if epoch == stop_after and metrics is None:
            raise Stop

    whole = train(CONFIG, tmp_path / "whole")
    with pytest.raises(Stop):
        train(CONFIG, tmp_path / "parts", stop)
    resumed = train(CONFIG, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert whole.history == resumed.history
    assert whole.tensors_sha256 == resumed.tensors_sha256


def test_a_run_killed_between_state_and_checkpoint_is_mended(tmp_path):
    """The state of the last epoch is there, the checkpoint still that of an earlier one."""
    folder = tmp_path / "run"

    class Stop(Exception):
        pass

    def stop(epoch, done, metrics):
        if epoch == 1 and metrics is None:
            raise Stop

    with pytest.raises(Stop):
        train(CONFIG, folder, stop)
    early = {
        name: (folder / name).read_bytes() for name in ("model.safetensors", "checkpoint.json")
    }
    whole = train(CONFIG, folder)
    for name, data in early.items():
        (folder / name).write_bytes(data)
    mended = train(CONFIG, folder)
    assert mended.history == whole.history
    assert mended.tensors_sha256 == whole.tensors_sha256


def test_settings_are_saved_and_other_settings_refused(tmp_path):
    from dataclasses import replace

    train(CONFIG, tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    assert saved["config"] == CONFIG.as_dict()
    assert TrainConfig.from_dict(saved["config"]) == CONFIG
    with pytest.raises(CheckpointError, match="run with other settings"):
        train(replace(CONFIG, levels=8), tmp_path / "run")


def test_the_kept_epoch_is_the_best_on_the_held_out_split(tmp_path):
    checkpoint = train(CONFIG, tmp_path / "run")
    scores = [h["selection"] for h in checkpoint.history]
    assert scores[checkpoint.epoch - 1] == max(scores)


def test_a_limit_draws_from_all_classes(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    np.savez(
        tmp_path / "sorted.npz",
        train_samples=rng.integers(0, 256, (200, 6)).astype(np.uint8),
        train_labels=labels,
    )
    data = open_split(f"npz:{tmp_path}/sorted.npz@train")
    part = train_classifier._subset(data, 60, 1)
    assert len(part) == 60
    assert np.bincount(part.labels).min() >= 8
    assert np.array_equal(part.samples, train_classifier._subset(data, 60, 1).samples)
    assert not np.array_equal(part.samples, train_classifier._subset(data, 60, 2).samples)


def test_held_out_split_is_stratified_seeded_and_disjoint():
    data = open_split("digits@train")
    rest, held = hold_out(data, 0.1, 3)
    assert len(rest) + len(held) == len(data)
    assert np.array_equal(hold_out(data, 0.1, 3)[1].samples, held.samples)
    assert not np.array_equal(hold_out(data, 0.1, 4)[1].samples, held.samples)
    share = np.bincount(held.labels) / np.bincount(data.labels)
    assert ((share > 0.08) & (share < 0.12)).all()


def test_sigma_by_hand():
    """One NQ neuron: the residual error's deviation over known inputs."""
    model = nn.Sequential(nn.Linear(1, 1), NQ(levels=4, threshold=2.0))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(0.0)
    # T = 1, v0 = 1: fires (2.0) where z >= 1. The ANN gives 0.5, 1.0, 1.5, 0.0 for these inputs:
    # gaps 0.5 - 0, 1.0 - 2, 1.5 - 2, 0 - 0; mean -0.25, variance
    # (0.75^2 + 0.75^2 + 0.25^2 + 0.25^2) / 4 = 0.3125
    x = torch.tensor([[0.5], [1.0], [1.5], [-1.0]])
    compared = compare_with_spiking(model, [x], 1)
    assert compared.residual_std == {"1": pytest.approx(0.3125**0.5)}
    assert compared.quantized.flatten().tolist() == [0.5, 1.0, 1.5, 0.0]
    assert compared.spiking.flatten().tolist() == [0.0, 2.0, 2.0, 0.0]


def test_training_learns(digits_conv):
    x = normalised(digits_conv.test, (0.0,), (1.0,))
    model = digits_conv.checkpoint.model
    for outputs in (
        logits(model, x, ActivationMode.QUANTIZED),
        logits(model, x, ActivationMode.CLIPPED),
        spiking_logits(model, x, [4])[4],
    ):
        assert accuracy(outputs, digits_conv.test.labels) > 0.9
    assert all("sigma/features.6" in h for h in digits_conv.checkpoint.history)


def test_pickled_code_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_tensors(path)
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"state_dict\(\) instead"):
        read_tensors(tmp_path / "module.pt")
    assert not marker.exists()


def test_a_pickled_state_dict_is_read(tmp_path):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    load_weights(other, tmp_path / "a.pt")
    assert torch.equal(model.weight, other.weight)
    with pytest.raises(CheckpointError, match="weight has shape"):
        load_weights(nn.Linear(4, 2), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"missing 0\.weight"):
        load_weights(nn.Sequential(nn.Linear(3, 2)), tmp_path / "a.pt")


def test_damaged_checkpoints(tmp_path):
    folder = tmp_path / "run"
    train(CONFIG, folder)
    tensors, info = folder / "model.safetensors", folder / "checkpoint.json"
    whole, text = tensors.read_bytes(), info.read_text()
    tensors.write_bytes(whole[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="not those the checkpoint was saved with"):
        load_checkpoint(folder)
    tensors.write_bytes(whole)
    info.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(folder)
    info.write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(CheckpointError, match="unknown checkpoint version"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        load_checkpoint(tmp_path)
    (folder / "last.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged training state"):
        train(CONFIG, folder)


def test_wrong_settings_and_places(tmp_path):
    with pytest.raises(DataError, match="levels must lie in"):
        TrainConfig(data="digits", levels=0)
    with pytest.raises(DataError, match="no such model"):
        train(TrainConfig(data="digits", model="vgg"), tmp_path / "a")
    with pytest.raises(DataError, match="no such activation"):
        train(TrainConfig(data="digits", activation="gelu"), tmp_path / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="folder cannot be made"):
        train(CONFIG, tmp_path / "file" / "run")
