"""Training in several processes by torchrun, on the processor, against one process."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.command_line import ROOT, here
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.ranks import Ranks
from toolchain.learning.training.train_classifier import train

CONFIG = TrainConfig(
    data="digits",
    model="mlp",
    width=0.5,
    activation="relu",
    epochs=3,
    batch_size=50,
    initial_threshold=1.0,
    initial_weights="torch",
    train_limit=300,
    precision="float32",
    seed=5,
)
NOISY = replace(
    CONFIG,
    model="lenet",
    width=0.25,
    activation="nq",
    augment=("crop", "flip"),
    batch_size=64,
    learning_rate=0.1,
    train_limit=600,
)
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import distributed
from tests.learning.test_ranks import CONFIG, NOISY
from toolchain.learning.training.ranks import ranks
from toolchain.learning.training.state_file import tensors_sha256
from toolchain.learning.training.train_classifier import Classification
from toolchain.learning.training.trainer import train_task

class Stop(Exception):
    pass

def stop(epoch, done, metrics):
    if epoch == 1 and metrics is None:
        raise Stop

def run(config, name, progress=None):
    task = Classification(config)
    try:
        kept = train_task(task, Path(name), progress)
    except Stop:
        return None
    return [tensors_sha256(task.model.state_dict()), kept.tensors_sha256, kept.history]

torch.set_num_threads(1)
distributed.init_process_group("gloo")
found = {
    "plain": run(CONFIG, "plain"),
    "noisy": run(NOISY, "noisy"),
    "again": run(NOISY, "again"),
    "stopped": run(NOISY, "parts", stop),
    "resumed": run(NOISY, "parts"),
    "own": run(replace(CONFIG, model="nets.py:net", width=1.0), "own"),
}
Path(f"rank{ranks().rank}.json").write_text(json.dumps(found))
distributed.destroy_process_group()
"""
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(64, 16), nn.Linear(16, 10), nn.Linear(3, 3)

    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu())

def net():
    return Net()
"""


def torchrun(folder, *command):
    """The command in two processes that talk over this machine alone."""
    how = ("--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", "0")
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *how, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A script of the user's in two processes: what each process found, and its folders."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "nets.py").write_text(NETS)
    ended = torchrun(folder, "script.py")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_gradients_are_those_of_one_process(folder, tmp_path):
    """Without random numbers, levels and batch statistics, runs are the same up to rounding."""
    alone = train(CONFIG, tmp_path / "alone").history
    both = load_checkpoint(folder / "plain").history
    assert len(both) == len(alone) == 3
    for one, other in zip(alone, both, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["train_accuracy"] == one["train_accuracy"]
    assert alone[-1]["loss"] < 0.99 * alone[0]["loss"]


def test_all_processes_hold_the_same_weights(found):
    """Parameters and buffers, with the noise that the first has measured."""
    first, second = found
    assert first == second
    assert any(v > 0 for k, v in first["noisy"][2][-1].items() if k.startswith("sigma/"))


def test_runs_repeat_and_continue_to_the_same_bits(folder, found):
    assert load_checkpoint(folder / "parts").config == NOISY
    for result in found:
        assert result["stopped"] is None
        assert result["noisy"] == result["again"] == result["resumed"]


def test_one_process_writes(folder):
    for name in ("plain", "noisy", "parts", "own"):
        lines = (folder / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
        assert {json.loads(line)["processes"] for line in lines} == {2}


def test_a_network_with_parameters_that_it_does_not_use(found):
    history = found[0]["own"][2]
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_command(tmp_path):
    train = ("-m", "toolchain.cli", "train", "--data", "digits", "--model", "mlp", "--limit", "200")
    how = ("--epochs", "1", "--initial-threshold", "2", "--out", "run")
    ended = torchrun(tmp_path, *train, *how)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("kept epoch 1 of 1") == 1
    assert ended.stderr.count("training: started") == 1
    assert len(load_checkpoint(tmp_path / "run").history) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [12, 7, 1])
def test_shares_of_a_batch(size, count):
    """Each sample counts once; a process without any has one that does not count."""
    rows = torch.randperm(100)[:count]
    shares = [Ranks(rank, size).share(rows) for rank in range(size)]
    assert all(len(samples) for samples, _ in shares)
    counted = torch.cat([samples[:number] for samples, number in shares])
    assert sorted(counted.tolist()) == sorted(rows.tolist())
    assert max(number for _, number in shares) - min(number for _, number in shares) <= 1


def test_a_detector_is_trained_in_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    end = here("detector", "train", "--data", "shapes", "--out", "run")
    assert end.exit_code == 2
    assert "a detector is trained in one process" in str(end.error)
    assert not Path("run").exists()
