"""`spikeport inspect` on branched networks: sources of every layer, nothing cut short."""

import json

import pytest

from exports.netx import write_net
from tests.networks import branched_program
from toolchain.cli.inspect import command


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "branched.net"
    write_net(branched_program(1, "cif", ("residual", "max", "sum")), path)
    return path


def test_the_table_names_every_source(net, capsys):
    command(net)
    shown = capsys.readouterr().out
    assert "fed by" in shown
    assert "…" not in shown
    words = shown.replace("│", " ").split()
    # Kind and source of both synapses of the residual layer, and of the pool and the relay.
    for name in ("residual0a", "residual0", "max1", "sum2p", "window", "LIPOOL", "RELAY", "stem"):
        assert name in words, name


def test_chains_look_as_before(tmp_path, capsys):
    path = tmp_path / "chain.net"
    write_net(branched_program(1, "cif", ("max",), skip_to_readout=False), path)
    command(path)
    assert "fed by" not in capsys.readouterr().out


def test_json_has_sources(net, capsys):
    command(net, json=True)
    layers = {layer["name"]: layer for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert layers["residual0"]["sources"] == ["residual0a", "stem"]
    assert layers["residual0"]["synapses"] == "conv+conv"
    assert layers["max1"]["weights"] is None
    assert layers["max1"]["threshold"] == "-"
    assert layers["sum2p"]["weights"] == [1, 1]
    assert layers["readout"]["sources"] == ["sum2", "stem"]
