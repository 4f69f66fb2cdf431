"""`evaluate`, `sweep` and `audit` of networks that `train` did not train, and of `.net` files."""

import json
import sqlite3

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import spikeport
from hw_models.profile import load_profile
from spikeport.given_network import RANDOM_WEIGHTS, GivenNetwork, described
from spikeport.sweeping import Lowering, _opened
from tests.checkpoints import detector
from tests.command_line import here
from toolchain.errors import ConversionError
from toolchain.learning.data import open_split
from toolchain.learning.evaluation.results import Evaluation
from toolchain.sweep.grid import Point

TEST, TRAIN = "digits@test[:60]", "digits@train[:200]"
NETS = """
import torch
from torch import nn
from toolchain.learning.activations import CQReLU

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))

def cqrelu():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), CQReLU(4), nn.Linear(24, 10))

def narrow():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), CQReLU(4), nn.Linear(24, 4))

class Ramp(nn.Module):
    def forward(self, x):
        return torch.floor(x.clamp(0, 1) * 4) / 4

def ramp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), Ramp(), nn.Linear(24, 10))
"""
ADAPTER = """
import torch
from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter

@activation_adapter("Ramp")
def ramp(module):
    return ActivationSpec(threshold=torch.ones(1).numpy(), levels=4, shift=0.0, kind="ramp")
"""


@pytest.fixture(scope="module")
def trained():
    """A plain ReLU network that has learnt the digits."""
    torch.manual_seed(0)
    data = open_split("digits@train")
    x, y = torch.from_numpy(data.real()).float(), torch.from_numpy(data.labels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """The network as a factory with weights, as ONNX and as a `.net` file."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "adapters.py").write_text(ADAPTER)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PLAIN = ("nets.py:plain", "--weights", "w.pt", "--calibrate", TRAIN)


def test_a_factory_is_measured_as_its_module_and_as_convert_makes_it(trained, folder):
    end = here("evaluate", *PLAIN, "--data", TEST, "--steps", "2,8", "-o", "e.json")
    assert end.exit_code == 0, end.output
    assert "the float spiking network and the layer errors are measured of networks that" in (
        " ".join(end.output.split())
    )
    found, data = Evaluation.read(folder / "e.json"), open_split(TEST)
    with torch.no_grad():
        outputs = trained(torch.from_numpy(data.real()).float()).numpy()
    correct = int((outputs.argmax(1) == data.labels).sum())
    assert found.find(network="ANN").accuracy["correct"] == correct > 45
    conversion = spikeport.convert("nets.py:plain", weights="w.pt", calibrate=TRAIN, steps=8)
    recording = spikeport.run(conversion, TEST, record="counts")
    row = found.find(neuron="IF", steps=8)
    assert row.accuracy["correct"] == round(60 * recording.accuracy())
    assert {(r.network, r.arithmetic, r.steps) for r in found.rows} == {
        ("ANN", "float", None),
        ("SNN", "8-bit integer", 2),
        ("SNN", "8-bit integer", 8),
    }
    assert (found.run, found.gaps, found.config) == (None, None, {})
    assert found.network["weights_sha256"] == conversion.program.provenance["weights_sha256"]


def test_a_module_an_onnx_file_and_a_factory_are_one_network(trained, folder):
    weights = {k: v.numpy() for k, v in trained.state_dict().items()}
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "1.weight", "1.bias"], ["a"], transB=1),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Gemm", ["b", "3.weight", "3.bias"], ["y"], transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 1, 8, 8])],
        [onnx.helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), "net.onnx")
    how = {"calibrate": TRAIN, "steps": (4,)}
    rows = [
        spikeport.evaluate(network, TEST, weights=weights, **how).rows
        for network, weights in ((trained, None), ("net.onnx", None), ("nets.py:plain", "w.pt"))
    ]
    assert rows[0] == rows[1] == rows[2]
    conversion = spikeport.convert("net.onnx", calibrate=TRAIN)
    spikeport.save(conversion, "net.net")
    end = here("audit", "net.net", "--data", TEST, "--checkpoint", "net.onnx", "--lava", "0")
    assert end.exit_code == 0, end.output
    points = [("--steps", "4"), ("--weight-bits", "8"), ("--calibrate", TRAIN), ("-o", "s.sqlite")]
    options = [word for pair in points for word in pair]
    end = here("sweep", "net.onnx", "--data", TEST, *options, "--json")
    assert end.exit_code == 0, end.output
    (result,) = json.loads(end.stdout)["results"]
    assert result["program_hash"] == conversion.program.hash
    assert result["levels"] is None
    again = here("sweep", "net.onnx", "--data", TEST, *options, "--json", "--mean", "0.1")
    assert json.loads(again.stdout)["results"][0]["program_hash"] != conversion.program.hash
    with sqlite3.connect("s.sqlite") as database:
        assert database.execute("SELECT count(*) FROM results").fetchone() == (2,)


def test_a_net_file_is_measured_as_it_is(folder):
    conversion = spikeport.convert("nets.py:plain", weights="w.pt", calibrate=TRAIN, steps=6)
    spikeport.save(conversion, "net.net")
    end = here("evaluate", "net.net", "--data", TEST, "--json")
    assert end.exit_code == 0, end.output
    document = json.loads(end.stdout)
    assert [row["steps"] for row in document["rows"]] == [1, 2, 4, 6]
    assert document["out"] is None
    assert "a .net file holds integers only" in document["notes"][0]
    accuracy = spikeport.run("net.net", TEST, record="counts").accuracy()
    assert document["rows"][-1]["accuracy"]["accuracy"] == accuracy
    for option, message in (
        (("--steps", "7"), "the program has fewer steps"),
        (("--weight-bits", "4"), "is converted already"),
        (("--calibrate", TRAIN), "is converted already"),
        (("--adapter", "adapters.py"), "is converted already"),
        (("--mean", "0.5"), "is converted already"),
    ):
        end = here("evaluate", "net.net", "--data", TEST, *option)
        assert end.exit_code == 2
        assert message in str(end.error)
    end = here("sweep", "net.net", "--data", TEST, "-o", "s.sqlite")
    assert end.exit_code == 2
    assert "nothing of it can vary" in str(end.error)


@pytest.mark.parametrize("sleep", [0, 20])
def test_a_net_file_of_cif_neurons_need_not_settle(folder, sleep):
    conversion = spikeport.convert(
        "nets.py:cqrelu", input_shape=(1, 8, 8), neuron="cif", sleep_steps=sleep
    )
    spikeport.save(conversion, "cif.net")
    found = spikeport.evaluate("cif.net", TEST)
    end = here("evaluate", "cif.net", "--data", TEST, "--steps", "2")
    assert (end.exit_code, end.error.remedy) == (2, "leave --steps out")
    variants = found.counts["variants"]
    assert list(variants) == ["CIF", "CIF + sleep"]
    if sleep:
        assert variants["CIF + sleep"]["unequal_images"] == 0
        quantized = found.find(network="ANN", arithmetic="8-bit integer").accuracy
        assert found.find(neuron="CIF + sleep").accuracy == quantized
    else:
        assert variants["CIF + sleep"] == variants["CIF"]
    outside = spikeport.evaluate("nets.py:cqrelu", TEST)
    assert outside.find(neuron="CIF").accuracy == found.find(neuron="CIF").accuracy
    assert outside.counts["variants"]["CIF + sleep"]["unequal_images"] == 0


def test_adapters_reach_every_command(folder):
    source, adapter = "nets.py:ramp", ("--adapter", "adapters.py")
    end = here("convert", source, *adapter, "--input-shape", "1,8,8", "-o", "ramp.net")
    assert end.exit_code == 0, end.output
    for command in (
        ("evaluate", source, "--data", TEST, *adapter),
        ("sweep", source, "--data", TEST, "-o", "s.sqlite", "--steps", "2", *adapter),
        (*("audit", "ramp.net", "--data", TEST, "--checkpoint", source), *adapter, "--lava", "0"),
    ):
        end = here(*command)
        assert end.exit_code == 0, end.output


def test_another_file_is_another_network(folder):
    def points():
        swept = spikeport.sweep(["nets.py:plain"], TEST, "s.sqlite", calibrate=TRAIN, steps=(2,))
        assert not swept.failed
        assert RANDOM_WEIGHTS in swept.notes
        return {result.key for result in swept.results}

    first = points()
    assert points() == first  # opened once in this process, so that its random weights stay
    _opened.cache_clear()
    (folder / "nets.py").write_text(NETS.replace("nn.ReLU()", "nn.ReLU6()"))
    assert len(first & points()) == 0


def test_weights_that_differ_each_time_are_no_sweep(folder):
    given = GivenNetwork("nets.py:plain", None, described((1, 8, 8)), TRAIN)
    limits = load_profile("loihi2").as_target_limits()
    convert = Lowering({"r": (given, given.open().sha256)}, limits)
    with pytest.raises(ConversionError, match="another one each time it is opened"):
        convert(Point("r", 0, "if", 2, 8))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate nets.py:plain --data digits@test[:9]", "a plain ReLU has no threshold"),
        ("evaluate nets.py:narrow --data digits@test[:60]", "fewer outputs than the data have"),
        (
            "evaluate nets.py:cqrelu --data npz:other.npz",
            "Linear does not fit what comes before it",
        ),
        ("evaluate nets.py:cqrelu --data digits --layer-steps 4", "leave --layer-steps out"),
        ("evaluate nets.py:nothing --data digits", "the file defines no such factory"),
        ("evaluate nets.py --data digits", "a file needs the name of a factory in it"),
        ("evaluate nothing.onnx --data digits", "no such file"),
        ("evaluate nothing.net --data digits", "no such file"),
        ("evaluate graph.nir --data digits", "a file is no checkpoint folder"),
        ("evaluate detector --data digits", "this is not a classifier's checkpoint"),
        ("sweep detector --data digits -o s.sqlite", "this is not a classifier's checkpoint"),
        ("sweep nets.py:nothing --data digits -o s.sqlite", "the file defines no such factory"),
    ],
)
def test_wrong_use(folder, command, message):
    (folder / "detector").mkdir()
    detector(folder / "detector")
    (folder / "graph.nir").touch()
    samples = np.zeros((4, 1, 9, 9), np.uint8)
    np.savez(folder / "other.npz", test_samples=samples, test_labels=np.arange(4))
    end = here(*command.split())
    assert end.exit_code == 2, end.output
    assert message in f"{end.error} {end.error.remedy}"
