"""Wrong use of the command line: messages, exit codes, nothing half-written."""

import json

import numpy as np
import pytest

from tests.command_line import fails, ok, spikeport
from tests.networks import random_program


def test_json_errors(tmp_path):
    result = spikeport("inspect", tmp_path / "none.net", "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout)["message"] == "no such file"


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
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --neuron lif",
            "'lif' is not one of 'if', 'cif'",
        ),
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
        ("convert nets.py:good -o x.net --input-shape 1,8,8 --rounding up", "'up' is not one of"),
        (
            "convert nets.py:good -o x.net --input-shape 1,8,8 --thresholds low",
            "'low' is not one of",
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
            "(--calibrate DATA)",
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
        ("train --data digits --out r --levels 0", "levels must lie in"),
        ("inspect nets.py", "is no network file yet"),
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
            "run if.net --data digits@test[:2] -o r.npz --batch 4",
            "--batch says nothing to the backend reference",
        ),
        (
            "run if.net --data digits@test[:2] -o r.npz --backend lava --models fast --blocks 99",
            "cannot be cut into that many blocks",
        ),
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
        "import torch\nfrom torch import nn\nfrom toolchain.learning.activations import QCFS\n"
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


LONG = 300 * "a"


@pytest.mark.parametrize(
    "arguments",
    [
        f"inspect {LONG}.net",
        f"lint {LONG}.net",
        f"compare {LONG}.npz {LONG}.npz",
        f"convert {LONG} -o x.net",
        f"run if.net --data npz:{LONG}.npz -o r.npz",
        f"run if.net --data digits -o {LONG}.npz",
        f"audit if.net --data digits --target {LONG}.toml",
        f"train --config {LONG}.toml --out q",
        f"evaluate {LONG} --data digits",
        "inspect if.net/x.net",
        "run if.net --data npz:if.net/x.npz -o r.npz",
    ],
)
def test_paths_that_cannot_be(work, arguments):
    fails(2, "", *arguments.split(), cwd=work)
