"""Shared fixtures: trained networks, data, the hypothesis profile."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from hw_models.profile import load_profile
from spikeport.trained_network import TrainedNetwork, network_of
from tests.command_line import FACTORIES, ROOT, here, ok
from toolchain.learning.data import Dataset, open_split
from toolchain.learning.data.mnist import DEBIAN_FOLDER
from toolchain.learning.training.checkpoint import Checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.train_classifier import train

settings.register_profile(
    "spikeport",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("spikeport")


LONG = ("test_notebooks", "test_lint_fuzz", "test_sweep", "test_audit_page")
"""Files that take minutes: they come first, so that no process is left waiting at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@dataclass(frozen=True)
class Trained:
    """A trained network with the data it was made for."""

    checkpoint: Checkpoint
    network: TrainedNetwork
    test: Dataset


@pytest.fixture(autouse=True, scope="session")
def environment(tmp_path_factory):
    """Decoded images go where the tests' other files go; every process finds this project."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SPIKEPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("PYTHONPATH", str(ROOT))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def limits():
    return load_profile("loihi2").as_target_limits()


def _trained(folder, **config):
    checkpoint = train(TrainConfig(**config), folder)
    source = config["data"]
    return Trained(checkpoint, network_of(checkpoint, folder), open_split(f"{source}@test"))


@pytest.fixture(scope="session")
def digits_conv(tmp_path_factory):
    return _trained(
        tmp_path_factory.mktemp("run") / "digits",
        data="digits",
        width=0.5,
        epochs=12,
        batch_size=64,
        initial_threshold=2.0,
    )


@pytest.fixture(scope="session")
def digits_dense(tmp_path_factory):
    return _trained(
        tmp_path_factory.mktemp("run") / "digits-mlp",
        data="digits",
        model="mlp",
        activation="qcfs",
        epochs=12,
        batch_size=64,
        initial_threshold=2.0,
    )


@pytest.fixture(scope="session")
def digits_cqrelu(tmp_path_factory):
    return _trained(
        tmp_path_factory.mktemp("run") / "digits-cqrelu",
        data="digits",
        width=0.5,
        activation="cqrelu",
        levels=4,
        epochs=12,
        batch_size=64,
    )


def _needs_fashion():
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")


@pytest.fixture(scope="session")
def fashion_conv(tmp_path_factory):
    _needs_fashion()
    return _trained(
        tmp_path_factory.mktemp("run") / "fashion",
        data="fashion-mnist",
        width=0.25,
        epochs=3,
        train_limit=6000,
        initial_threshold=2.0,
    )


@pytest.fixture(scope="session")
def fashion_dense(tmp_path_factory):
    _needs_fashion()
    return _trained(
        tmp_path_factory.mktemp("run") / "fashion-mlp",
        data="fashion-mnist",
        model="mlp",
        epochs=3,
        train_limit=6000,
        initial_threshold=2.0,
    )


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory):
    """Tiny runs of three activations and of fixed noise, evaluated by the command itself."""
    folder = tmp_path_factory.mktemp("runs")
    common = "--data digits --model lenet --width 0.25 --epochs 4 --limit 300 --batch-size 64"
    evaluated = "--data digits@test[:40] --steps 1,4 --weight-bits 8,3"
    runs = {
        "nq": ("--activation nq --initial-threshold 2", "--lava 2"),
        "qcfs": ("--activation qcfs --initial-threshold 2", ""),
        "cqrelu": ("--activation cqrelu", ""),
        "noise-0.1": ("--activation nq --initial-threshold 2 --fixed-noise 0.1", ""),
    }
    for name, (trained_with, more) in runs.items():
        for command in (
            f"train {common} {trained_with} --out {folder / name}",
            f"evaluate {folder / name} {evaluated} {more}",
        ):
            result = here(*command.split())
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """A folder with a trained run and a converted network."""
    folder = tmp_path_factory.mktemp("cli")
    ok(
        *[
            "train",
            "--data",
            "digits",
            "--out",
            "run",
            "--width",
            "0.25",
            "--epochs",
            "5",
            "--batch-size",
            "64",
        ],
        *["--initial-threshold", "2", "--seed", "3"],
        cwd=folder,
    )
    ok("convert", "run", "-o", "if.net", cwd=folder)
    return folder


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORIES)
    wide = np.zeros((20, 1, 9, 9), np.float32)
    np.savez(tmp_path / "wide.npz", train_samples=wide, train_labels=np.zeros(20, int))
    return tmp_path
