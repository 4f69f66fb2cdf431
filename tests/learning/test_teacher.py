"""Knowledge distillation: `train(teacher=RUN)`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import spikeport
from toolchain.errors import CheckpointError, DataError
from toolchain.learning.activations import ActivationMode
from toolchain.learning.data import open_split
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import accuracy, logits, normalised
from toolchain.learning.training.teacher import taught

CONFIG = TrainConfig("digits", model="mlp", activation="relu", epochs=8, batch_size=32)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    spikeport.train(CONFIG, folder)
    return folder


def test_the_loss_by_hand():
    outputs, wanted = np.array([[1.0, -2.0, 0.5]]), np.array([[3.0, 0.0, -1.0]])
    p, q = (np.exp(v / 4) / np.exp(v / 4).sum() for v in (wanted, outputs))
    expected = 0.5 * 0.7 + 0.5 * 16 * (p * np.log(p / q)).sum()
    found = taught(torch.tensor(0.7), torch.from_numpy(outputs), torch.from_numpy(wanted))
    assert found.item() == pytest.approx(expected)


def test_what_the_labels_do_not_say_is_learned_from_the_teacher(teacher, tmp_path):
    """Shuffled labels alone teach nothing: a network of theirs is right by chance."""
    train, test = open_split("digits@train"), open_split("digits@test")
    shuffled = np.random.default_rng(0).permutation(train.labels)
    np.savez(
        tmp_path / "wrong.npz",
        train_samples=train.real().astype(np.float32),
        train_labels=shuffled,
        test_samples=test.real().astype(np.float32),
        test_labels=test.labels,
        class_names=np.array(train.class_names),
    )
    config = replace(CONFIG, data=f"npz:{tmp_path / 'wrong.npz'}", seed=1)
    run = spikeport.train(replace(config, teacher=str(teacher)), tmp_path / "run")
    x = normalised(test, config.mean, config.std)
    assert accuracy(logits(run.model, x, ActivationMode.QUANTIZED), test.labels) > 0.85


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "other mean"),
        ({"std": (0.5,)}, "other std"),
        ({"data": "fashion-mnist", "train_limit": 100}, "other samples"),
    ],
)
def test_a_teacher_of_other_inputs_is_refused(teacher, changes, message, tmp_path):
    with pytest.raises(DataError, match=message):
        spikeport.train(replace(CONFIG, teacher=str(teacher), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        spikeport.train(replace(CONFIG, teacher=str(tmp_path / "none")), tmp_path / "run")
