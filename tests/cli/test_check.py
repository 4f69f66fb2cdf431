"""`spikeport check`: everything that keeps a network from being converted."""

import json

import pytest

import spikeport
from tests.command_line import ok
from tests.command_line import spikeport as command

NETS = """
from torch import nn

def relus():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU6(), nn.Linear(8, 2)
    )

def gates():
    return nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.SiLU(),
        nn.GLU(1), nn.Flatten(), nn.Linear(8, 2),
    )

def wrong():
    return nn.Sequential(nn.Flatten(), nn.Linear(63, 2))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def check(name, folder, *more):
    return command("check", f"nets.py:{name}", "--input-shape", "1,8,8", *more, cwd=folder)


def test_a_network_that_can_be_converted(folder):
    shown = ok("check", "nets.py:relus", "--input-shape", "1,8,8", cwd=folder).stdout
    assert "relus can be converted: 3 layers of 154 neurons, 1,204 weights" in shown
    assert "2 plain ReLUs take their thresholds from calibration data: --calibrate DATA" in shown


def test_all_obstacles(folder):
    found = check("gates", folder)
    assert found.returncode == 1
    assert "1. 2, 4: torch.nn.modules.activation.SiLU has no exact" in found.stdout
    assert "2. 5: torch.nn.modules.activation.GLU has no exact" in found.stdout
    answer = json.loads(check("gates", folder, "--json").stdout)
    assert not answer["ok"]
    assert [o["node"] for o in answer["obstacles"]] == ["2, 4", "5"]


def test_shapes_that_do_not_fit(folder):
    found = check("wrong", folder)
    assert found.returncode == 1
    assert "1. 1: Linear does not fit what comes before it" in found.stdout


def test_a_converted_network_is_no_network_to_check(folder):
    found = command("check", "x.net", cwd=folder)
    assert found.returncode == 2


def test_from_python(folder):
    found = spikeport.check(f"{folder}/nets.py:relus", input_shape=(1, 8, 8))
    assert (found.ok, found.layers, found.plain_relus) == (True, 3, 2)
    assert found.describe()["weights"] == found.weights == 36 + 144 * 8 + 16
    gates = spikeport.check(f"{folder}/nets.py:gates", input_shape=(1, 8, 8))
    assert [type(o).__name__ for o in gates.obstacles] == ["UnsupportedModuleError"] * 2
