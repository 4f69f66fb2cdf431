"""The command line as a user types it: results, messages, exit codes, nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.networks import random_program
from toolchain import __version__

ROOT = Path(__file__).resolve().parents[1]


def spikeport(*arguments, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-m", "toolchain.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


def ok(*arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def fails(code, message, *arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert message in result.stderr, result.stderr
    return result


@pytest.fixture(scope="module")
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


def test_the_whole_way(work):
    for backend in ("reference", "lava"):
        arguments = ["--data", "digits@test[:6]", "--backend", backend, "-o", f"{backend}.npz"]
        assert "accuracy" in ok("run", "if.net", *arguments, cwd=work).stdout
    shown = ok("compare", "reference.npz", "lava.npz", cwd=work)
    assert "0 mismatches" in shown.stdout
    answer = json.loads(ok("compare", "reference.npz", "lava.npz", "--json", cwd=work).stdout)
    assert answer["equal"]
    assert answer["compared"] > 0


def test_compare_is_red_on_another_network(work):
    ok("convert", "run", "-o", "other.net", "--weight-bits", "6", cwd=work)
    for net in ("if", "other"):
        ok("run", f"{net}.net", "--data", "digits@test[:4]", "-o", f"{net}.npz", cwd=work)
    result = spikeport("compare", "if.npz", "other.npz", cwd=work)
    assert result.returncode == 1
    assert "first divergence: layer features.0, membrane, step 1" in result.stdout
    assert "different programs" in result.stdout


def test_cif_with_measured_sleep(work):
    shown = ok(
        *["convert", "run", "-o", "cif.net", "--neuron", "cif", "--calibrate", "digits@train[:50]"],
        cwd=work,
    )
    assert "settles within" in shown.stdout
    ok(
        *["run", "cif.net", "--data", "digits@test[:5]", "-o", "cif.npz", "--record", "digest"],
        cwd=work,
    )
    result = spikeport("compare", "cif.npz", "if.npz", cwd=work)
    assert result.returncode == 2


def test_conversion_on_calibration_data(work, factories):
    """Compensating rounding and its report, for people, as JSON and in the file's provenance."""
    arguments = ["convert", "run", "-o", "g.net", "--weight-bits", "3", "--rounding", "gptq"]
    arguments += ["--calibrate", "digits", "--calibration-samples", "64"]
    shown = ok(*arguments, "--report", cwd=work).stdout
    for word in ("SQNR", "saturated", "clipped", "dB"):
        assert word in shown
    answer = json.loads(ok(*arguments, "--json", cwd=work).stdout)
    inside = json.loads(ok("inspect", "g.net", "--json", cwd=work).stdout)["provenance"]
    assert inside["integers"]["rounding"] == "gptq"
    assert inside["integers"]["calibration_samples"] == 64
    assert inside["rounding"] == answer["layers"]
    layers = {layer["name"]: layer for layer in answer["layers"]}
    assert 5 < layers["features.0"]["sqnr_db"] < 40
    assert 0 <= layers["features.0"]["saturated"] < 0.5
    assert layers["classifier.2"]["saturated"] is None
    # The same seed gives the same bits; another choice of samples need not.
    again = json.loads(ok(*arguments, "--json", cwd=work).stdout)
    assert again["program_hash"] == answer["program_hash"]
    plain = ["convert", "nets.py:plain", "-o", "p.net", "--input-shape", "1,8,8"]
    plain += ["--relu-percentile", "99.9", "--calibrate", "digits", "--json"]
    assert ok(*plain, cwd=factories)
    assert (factories / "p.net").is_file()


def test_unsettled_networks_are_reported(work):
    ok(*["convert", "run", "-o", "short.net", "--neuron", "cif", "--sleep", "0"], cwd=work)
    ok(*["convert", "run", "-o", "one.net", "--neuron", "cif", "--sleep", "1"], cwd=work)
    shown = ok(
        *[
            "run",
            "short.net",
            "--data",
            "digits@test[:50]",
            "-o",
            "s.npz",
            "--record",
            "counts",
            "--json",
        ],
        cwd=work,
    )
    assert sum(json.loads(shown.stdout)["unsettled"].values()) > 0


def test_inspect(work):
    shown = ok("inspect", "if.net", cwd=work).stdout
    assert "features.0" in shown
    assert "checkpoint_sha256" in shown
    answer = json.loads(ok("inspect", "if.net", "--json", cwd=work).stdout)
    assert [layer["name"] for layer in answer["layers"]] == [
        "features.0",
        "features.4",
        "classifier.0",
        "classifier.2",
    ]
    assert all(layer["proved"] for layer in answer["layers"])
    assert answer["provenance"]["training"]["seed"] == 3


def test_stock_layout(work):
    ok(*["convert", "run", "-o", "stock.net", "--steps", "1", "--stock"], cwd=work)
    fails(2, "not a file of this project", "inspect", "stock.net", cwd=work)
    fails(2, "convert with --steps 1", *["convert", "run", "-o", "s4.net", "--stock"], cwd=work)
    assert not (work / "s4.net").exists()


def test_doctor():
    answer = json.loads(ok("doctor", "--json").stdout)
    found = {f["what"]: f["found"] for f in answer["findings"]}
    assert answer["ok"]
    assert found["lava-nc"] == "0.10.0"
    assert found["numpy"] == np.__version__
    for what in ("Python", "torch", "lava-dl (netx)", "lava repairs", "cores", "file descriptors"):
        assert found[what], what
    assert "everything is in place" in ok("doctor").stdout


def test_doctor_says_what_to_type():
    import resource

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    result = subprocess.run(
        [sys.executable, "-m", "toolchain.cli", "doctor"],
        capture_output=True,
        text=True,
        preexec_fn=few,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 1
    assert "ulimit -n 4096" in result.stdout


def test_version_and_help():
    assert ok("--version").stdout.strip() == f"spikeport {__version__}"
    shown = ok("--help").stdout
    for command in ("demo", "train", "convert", "run", "compare", "inspect", "doctor"):
        assert command in shown
        assert ok(command, "--help").stdout


def test_without_torch(work):
    """What needs torch says so; what does not, works."""
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError('no torch', name=name)\n"
        "sys.meta_path.insert(0, NoTorch)\n"
        "from toolchain.cli.app import main\n"
        "sys.argv = ['spikeport', *{!r}.split()]\nmain()"
    )

    def run(arguments):
        return subprocess.run(
            [sys.executable, "-c", code.format(arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
        )

    for arguments in ("train --data digits --out t", "run if.net --data digits@test[:2] -o t.npz"):
        result = run(arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("error: torch: is not installed")
        assert "pip install torch" in result.stderr
        assert not (work / "t.npz").exists()
    assert run("inspect if.net").returncode == 0
    result = run("run if.net --data digits@test[:2] --backend lava -o lava-only.npz")
    assert result.returncode == 0, result.stderr


def test_json_errors(tmp_path):
    result = spikeport("inspect", tmp_path / "none.net", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["message"] == "no such file"


FACTORIES = """
import torch
from torch import nn
from toolchain.activations import QCFS

def good():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), QCFS(4, 1.0), nn.Flatten(), nn.Linear(144, 10)
    )

def pooled():
    return nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4), nn.LPPool2d(2, 2), nn.Flatten(),
                         nn.Linear(36, 10))

def diverged():
    model = good()
    model[0].weight.data[1] = float("nan")
    return model

def zero():
    model = good()
    model[2].threshold.data.zero_()
    return model

def text():
    return "no network"

def no_levels():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), QCFS(0), nn.Linear(4, 2))

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def dead():
    model = plain()
    nn.init.constant_(model[1].weight, -1.0)
    nn.init.zeros_(model[1].bias)
    return model
"""


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORIES)
    wide = np.zeros((20, 1, 9, 9), np.float32)
    np.savez(tmp_path / "wide.npz", train_samples=wide, train_labels=np.zeros(20, int))
    return tmp_path


def test_networks_of_ones_own(factories, work):
    shape = ["--input-shape", "1,8,8"]
    ok("convert", "nets.py:good", "-o", "good.net", *shape, cwd=factories)
    import torch

    from tests.test_tracing import randomise

    namespace = {}
    exec(FACTORIES, namespace)
    model = randomise(namespace["good"]())
    torch.save(model.state_dict(), factories / "w.pt")
    ok("convert", "nets.py:good", "-o", "w.net", *shape, "--weights", "w.pt", cwd=factories)
    hashes = [
        json.loads(ok("inspect", f"{n}.net", "--json", cwd=factories).stdout)["program_hash"]
        for n in ("good", "w")
    ]
    assert hashes[0] != hashes[1]


ADAPTED = """
from torch import nn
class Ramp(nn.Module):
    def forward(self, x):
        return (x.clamp(0, 1) * 3).floor() / 3
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), Ramp(), nn.Linear(5, 2))
"""
ADAPTER = """
from toolchain.conversion.adapters import ActivationSpec, activation_adapter
@activation_adapter("Ramp")
def ramp(module):
    return ActivationSpec(1.0, 3, 0.0)
"""


def test_an_adapter_on_the_command_line(tmp_path):
    (tmp_path / "n.py").write_text(ADAPTED)
    (tmp_path / "a.py").write_text(ADAPTER)
    arguments = ["convert", "n.py:net", "-o", "x.net", "--input-shape", "1,8,8"]
    fails(2, "2.clamp: Tensor.clamp has no exact", *arguments, cwd=tmp_path)
    ok(*arguments, "--adapter", "a.py", cwd=tmp_path)
    assert (tmp_path / "x.net").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "convert nets.py:pooled -o x.net --input-shape 1,8,8",
            "2: torch.nn.modules.pooling.LPPool2d",
        ),
        (
            "convert nets.py:diverged -o x.net --input-shape 1,8,8",
            "0: weight holds NaN or infinity",
        ),
        ("convert nets.py:zero -o x.net --input-shape 1,8,8", "2: an activation threshold must be"),
        ("convert nets.py:text -o x.net --input-shape 1,8,8", "must return an nn.Module"),
        ("convert nets.py:none -o x.net --input-shape 1,8,8", "defines no such factory"),
        ("convert none.py:good -o x.net --input-shape 1,8,8", "none.py: no such file"),
        ("convert nets.py:good -o x.net", "the input shape is needed"),
        ("convert nets.py:good -o x.net --input-shape 1,9,9", "4: Linear does not fit"),
        ("convert nets.py:good -o x.net --input-shape a,b", "--input-shape: not numbers"),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --input-range 1,0", "LOW < HIGH"),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --weights w.pt", "w.pt: no such file"),
        ("convert nets.py:good -o no/x.net --input-shape 1,8,8", "no/x.net: the folder to write"),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --target tpu", "tpu: no such target"),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --neuron lif", "no such neuron"),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --sleep 3", "go with --neuron cif"),
        ("convert nowhere -o x.net", "nowhere: not a checkpoint folder"),
        ("convert nets.py:no_levels -o x.net --input-shape 1,8,8", "levels must be >= 1, found 0"),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --steps 0",
            "Invalid value for '--steps'",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --neuron cif --wake 0",
            "Invalid value for '--wake'",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --weight-bits 1",
            "weight bits out of range",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --weight-bits 9",
            "allowed: 2 .. 8 on loihi2",
        ),
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --rounding up", "no such rounding"),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --thresholds low",
            "no such choice of thresholds",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --rounding gptq",
            "rounding gptq needs calibration data",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,10,8 --calibrate digits",
            "samples do not have the shape the network was made for",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --calibrate digits@train[:9]",
            "allowed: at least 16",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --calibrate digits --calibration-samples 0",
            "Invalid value for",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --calibrate npz:wide.npz",
            "not have the shape the network was made for",
        ),
        (
            "convert nets.py:plain -o x.net --input-shape 1,8,8",
            "--relu-percentile 99.9 --calibrate DATA",
        ),
        (
            "convert nets.py:plain -o x.net --input-shape 1,8,8 --relu-percentile 99.9",
            "a percentile for ReLUs needs calibration",
        ),
        (
            "convert nets.py:plain -o x.net --input-shape 1,8,8 --relu-percentile 80 --calibrate digits",
            "allowed: 90 .. 100",
        ),
        (
            "convert nets.py:dead -o x.net --input-shape 1,8,8 --relu-percentile 99.9 --calibrate digits",
            "2: this ReLU is dead",
        ),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --relu-percentile 99 --calibrate digits",
            "no plain ReLU to give",
        ),
        ("train --data cifar --out r", "cifar: not a data source"),
        ("train --data digits --out r --model alexnet", "alexnet: no such model"),
        ("train --data digits --out r --levels 0", "levels must be positive"),
        ("inspect nets.py", "not a readable HDF5 file"),
        ("run none.net --data digits -o r.npz", "none.net: no such file"),
        ("compare a.npz b.npz", "a.npz: no such file"),
        ("compare nets.py nets.py", "nets.py: not a recording"),
    ],
)
def test_bad_input(factories, arguments, message):
    before = sorted(factories.rglob("*"))
    fails(2, message, *arguments.split(), cwd=factories)
    after = [p for p in sorted(factories.rglob("*")) if "__pycache__" not in p.parts]
    assert [p for p in after if p not in before and p.name != "r"] == []
    assert list(factories.glob("r/*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run if.net --data nowhere -o r.npz", "nowhere: not a data source"),
        ("run if.net --data imagefolder:/nowhere -o r.npz", "no such folder or zip"),
        ("run if.net --data npz:wide.npz -o r.npz", "not have the shape the network was made for"),
        ("run if.net --data digits@test[:2] -o no/r.npz", "no/r.npz: the folder to write into"),
        ("run if.net --data digits@test[:2] -o .", "the output is a folder"),
        (
            "run if.net --data digits@test[:20] -o r.npz --backend lava --time-limit 0.2",
            "did not end within 0.2 s",
        ),
    ],
)
def test_bad_runs(work, arguments, message):
    np.savez(work / "wide.npz", test_samples=np.zeros((2, 1, 9, 9)), test_labels=np.zeros(2, int))
    before = sorted(p for p in work.rglob("*"))
    fails(1 if "time-limit" in arguments else 2, message, *arguments.split(), cwd=work)
    assert sorted(p for p in work.rglob("*")) == before


def test_an_output_place_that_is_not_writable(work):
    fails(
        2,
        "/proc/x.npz: cannot be written",
        *["run", "if.net", "--data", "digits@test[:2]", "-o", "/proc/x.npz"],
        cwd=work,
    )
    fails(2, "/proc/x.net: cannot be written", *["convert", "run", "-o", "/proc/x.net"], cwd=work)


def test_a_program_that_cannot_be_proved_is_not_written(tmp_path):
    (tmp_path / "wide.py").write_text(
        "import torch\nfrom torch import nn\nfrom toolchain.activations import QCFS\n"
        "def wide():\n"
        "    model = nn.Sequential(nn.Flatten(), nn.Linear(4096, 4), QCFS(4, 1.0), nn.Linear(4, 2))\n"
        "    torch.manual_seed(0)\n"
        "    nn.init.uniform_(model[1].weight, 6e-4, 1e-3)\n"
        "    return model\n"
    )
    arguments = ["convert", "wide.py:wide", "-o", "x.net", "--input-shape", "1,64,64"]
    fails(2, "1: the current cannot be proved to stay within 24 bits", *arguments, cwd=tmp_path)
    assert not (tmp_path / "x.net").exists()
    ok(*arguments, "--watch-ranges", cwd=tmp_path)
    answer = json.loads(ok("inspect", "x.net", "--json", cwd=tmp_path).stdout)
    assert not all(layer["proved"] for layer in answer["layers"])


def test_damaged_net_files(tmp_path):
    from exports.netx import write_net

    path = tmp_path / "a.net"
    write_net(random_program(1), path)
    path.write_bytes(path.read_bytes()[:3000])
    fails(2, "a.net: not a readable HDF5 file", "inspect", path)


def test_demo(tmp_path):
    result = ok("demo", "--out", tmp_path / "demo", "--json")
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert [n["comparison"]["mismatches"] for n in answer["networks"]] == [0, 0]
    assert all(n["lava"] == n["reference"] > 0.95 for n in answer["networks"])
    assert sum(answer["networks"][1]["unsettled"].values()) == 0
    for name in ("digits-if.net", "digits-cif.net", "digits-nq/model.safetensors"):
        assert (tmp_path / "demo" / name).is_file()
