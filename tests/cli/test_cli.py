"""The command line as a user types it: results and messages."""

import json
import subprocess
import sys

import numpy as np

from exports.netx import write_net
from tests.command_line import FACTORIES, ROOT, fails, ok, spikeport
from tests.networks import random_program
from toolchain import __version__


def test_the_whole_way(work):
    for backend in ("reference", "lava"):
        arguments = ["--data", "digits@test[:6]", "--backend", backend, "-o", f"{backend}.npz"]
        assert "accuracy" in ok("run", "if.net", *arguments, cwd=work).stdout
    shown = ok("compare", "reference.npz", "lava.npz", cwd=work)
    assert "0 mismatches" in shown.stdout
    answer = json.loads(ok("compare", "reference.npz", "lava.npz", "--json", cwd=work).stdout)
    assert answer["equal"]
    assert answer["compared"] > 0


def test_fast_lava_models_give_the_same_bits(work):
    data = ["--data", "digits@test[:7]"]
    ok("run", "if.net", *data, "-o", "slow.npz", cwd=work)
    fast = ["--backend", "lava", "--models", "fast", "--blocks", "2", "--batch", "3"]
    ok("run", "if.net", *data, *fast, "-o", "fast.npz", cwd=work)
    assert "0 mismatches" in ok("compare", "slow.npz", "fast.npz", cwd=work).stdout


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


def test_inspect_shows_what_is_upsampled(tmp_path):
    program = random_program(1, convs=((3, 3, 1, 1, 1, 1), (3, 2, 1, 0, 1, 1, 3, 1)))
    write_net(program, tmp_path / "up.net")
    layers = json.loads(ok("inspect", "up.net", "--json", cwd=tmp_path).stdout)["layers"]
    assert [layer["synapses"] for layer in layers] == ["conv", "conv /3,/3", "dense", "dense"]


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


def test_networks_of_ones_own(factories, work):
    shape = ["--input-shape", "1,8,8"]
    ok("convert", "nets.py:good", "-o", "good.net", *shape, cwd=factories)
    import torch

    from tests.branched_modules import randomise

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
from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter
@activation_adapter("Ramp")
def ramp(module):
    return ActivationSpec(1.0, 3, 0.0)
"""


def test_an_adapter_on_the_command_line(tmp_path):
    (tmp_path / "n.py").write_text(ADAPTED)
    (tmp_path / "a.py").write_text(ADAPTER)
    arguments = ["convert", "n.py:net", "-o", "x.net", "--input-shape", "1,8,8"]
    fails(2, "2.floor: Tensor.floor has no exact", *arguments, cwd=tmp_path)
    ok(*arguments, "--adapter", "a.py", cwd=tmp_path)
    assert (tmp_path / "x.net").is_file()


def test_demo(tmp_path):
    result = ok("demo", "--out", tmp_path / "demo", "--json")
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert [n["comparison"]["mismatches"] for n in answer["networks"]] == [0, 0]
    assert all(n["lava"] == n["reference"] > 0.95 for n in answer["networks"])
    assert sum(answer["networks"][1]["unsettled"].values()) == 0
    for name in ("digits-if.net", "digits-cif.net", "digits-nq/model.safetensors"):
        assert (tmp_path / "demo" / name).is_file()
