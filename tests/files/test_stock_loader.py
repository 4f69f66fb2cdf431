"""One story about a file: lint, the readers, and lava-dl's loader itself say the same of it."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from exports.netx import read_net
from exports.netx.cuba_reader import read_cuba_net
from exports.netx.lint.check_file import look_at
from exports.netx.lint.rules import RULES
from exports.netx.stock_loader import ELSEWHERE, HERE, RAISING
from tests.netx_files import put, stock_file
from toolchain.errors import FormatError


def recurrent(layer):
    put(layer, "type", "dense_rec")
    put(layer, "weight_rec", layer["weight"][:, :3])


def complex_weights(layer):
    weight = layer["weight"][()]
    del layer["weight"]
    layer["weight/real"] = layer["weight/imag"] = weight


def resonators(layer):
    neuron = layer["neuron"]
    for name in ("iDecay", "vDecay"):
        del neuron[name]
    put(neuron, "type", "RF_PHASE")
    put(neuron, "sinDecay", np.full(3, 100.0))
    put(neuron, "cosDecay", np.full(3, 4000.0))


def complex_resonators(layer):
    complex_weights(layer)
    resonators(layer)


def complex_sdnn(layer):
    complex_weights(layer)
    put(layer, "neuron/type", "SDNN")


def of_type(kind):
    return lambda layer: put(layer, "type", kind)


def of_neuron(kind):
    return lambda layer: put(layer, "neuron/type", kind)


ONLY_THERE = {
    "SDNN": of_neuron("SDNN"),
    "dense_rec": recurrent,
    "complex weights": complex_resonators,
}
HALF_COMPLEX = {
    "complex weights and LOIHI neurons": complex_weights,
    "complex weights and SDNN neurons": complex_sdnn,
    "real weights and RF_PHASE neurons": resonators,
}
NOWHERE = {
    **{kind: of_type(kind) for kind in RAISING},
    "dropout": of_type("dropout"),
    "ALIF": of_neuron("ALIF"),
}


def changed(folder, change):
    """A file of lava-dl whose dense layer is changed."""
    path = stock_file(folder / "stock.net")
    with h5py.File(path, "r+") as file:
        change(file["layer/3"])
    return path


def refusal(read, path):
    with pytest.raises(FormatError) as error:
        read(path)
    return error.value


def test_what_runs_here(tmp_path):
    path = stock_file(tmp_path / "stock.net")
    assert look_at(path).found == []
    assert len(read_cuba_net(path)) == 4
    assert HERE in refusal(read_net, path).remedy


@pytest.mark.parametrize("kind", ONLY_THERE)
def test_what_only_the_loader_runs(kind, tmp_path):
    path = changed(tmp_path, ONLY_THERE[kind])
    (finding,) = look_at(path).found
    assert (finding.rule_id, finding.found, finding.remedy) == ("only-there", kind, ELSEWHERE)
    refused = refusal(read_cuba_net, path)
    assert (refused.found, refused.remedy) == (kind, ELSEWHERE)
    told = refusal(read_net, path).remedy
    assert kind in told
    assert ELSEWHERE in told
    assert HERE not in told


@pytest.mark.parametrize("kind", NOWHERE)
def test_what_nobody_runs(kind, tmp_path):
    path = changed(tmp_path, NOWHERE[kind])
    (finding,) = look_at(path).found
    assert finding.rule_id in ("unknown-layer", "unknown-neuron")
    refused = refusal(read_cuba_net, path)
    told = refusal(read_net, path).remedy
    assert refused.found == kind
    for text in (str(refused), told, finding.remedy):
        assert ELSEWHERE not in text
        assert HERE not in text
    assert RAISING.get(kind, "lava-dl's loader") in str(refused)


@pytest.mark.parametrize("kind", HALF_COMPLEX)
def test_what_is_only_half_complex(kind, tmp_path):
    path = changed(tmp_path, HALF_COMPLEX[kind])
    (finding,) = look_at(path).found
    assert (finding.rule_id, finding.found) == ("half-complex", kind)
    refused = refusal(read_cuba_net, path)
    assert (refused.found, refused.remedy) == (kind, finding.remedy)
    assert refused.node == f"{path}:{finding.where}"
    assert kind in refusal(read_net, path).remedy


def test_no_rule_sends_a_file_to_a_command_that_refuses_it():
    for rule in RULES.values():
        assert "spikeport run" not in rule.remedy
        assert "with this project" not in rule.remedy.replace(HERE, "") or "convert" in rule.remedy


def test_other_hdf5_is_no_network(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    (finding,) = look_at(tmp_path / "a.h5").found
    assert finding.rule_id == "no-network"
    assert refusal(read_net, tmp_path / "a.h5").remedy == finding.remedy


def test_a_reader_knows_its_remedy_better(tmp_path):
    """A file of a later version is not to be converted again, but read by a later version."""
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        file["spikeport/format_version"] = 99
    (finding,) = look_at(path).found
    assert finding.remedy == refusal(read_net, path).remedy
    assert "version of this project" in finding.as_dict()["remedy"]


LOAD = """
import json, sys
from hw_models.lava_compat import import_stock_netx
hdf5 = import_stock_netx()
told = {}
for path in sys.argv[1:]:
    try:
        told[path] = type(hdf5.Network(net_config=path).layers[-1]).__name__
    except Exception as error:
        told[path] = type(error).__name__
print("TOLD" + json.dumps(told))
"""


def test_the_loader_does_so(tmp_path):
    """What it builds, what it stops at, and that it skips what it does not know."""
    expected = {
        "dense_rec": "RecurrentDense",
        "complex weights": "ComplexDense",
        "dropout": "Conv",
        "SDNN": "Dense",
        **RAISING,
        "complex weights and LOIHI neurons": "AttributeError",
        "complex weights and SDNN neurons": "AttributeError",
        "real weights and RF_PHASE neurons": "TypeError",
    }
    changes, paths = {**ONLY_THERE, **NOWHERE, **HALF_COMPLEX}, {}
    for kind in expected:
        (tmp_path / kind).mkdir()
        paths[kind] = str(changed(tmp_path / kind, changes[kind]))
    command = [sys.executable, "-c", LOAD, *paths.values()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    told = json.loads(ran.stdout.rpartition("TOLD")[2])
    assert {kind: told[path] for kind, path in paths.items()} == expected
