"""NIR: round trips integer by integer, and the graph taken at its word by a plain interpreter."""

import json
from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exports.entry import Fate
from exports.netx import read_net, write_net
from exports.nir import has_hash, ledger, read_nir, write_nir
from exports.nir.graph import as_graph
from tests.command_line import FACTORIES, fails, ok
from tests.networks import branched_program, fits, one_convolution, random_inputs, random_program
from tests.oracles.numpy_loop import convolve
from tests.strategies import PLAIN_CONVS
from toolchain.errors import FormatError, TargetError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode
from toolchain.simulator.reference import simulate

SEQUENTIAL = ["residual", "strided", "concat", "sum"]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999), steps=st.sampled_from([1, 1, 4]))
def test_round_trips_of_chains(data, seed, steps, tmp_path_factory):
    convs = data.draw(PLAIN_CONVS)
    assume(fits((2, 7, 6), convs))
    program = random_program(seed, "if", (2, 7, 6), convs, schedule=Schedule(steps))
    check_round_trip(program, tmp_path_factory.mktemp("nir") / "x.nir")


@pytest.mark.parametrize("steps", [1, 5])
def test_round_trips_of_branches(steps, tmp_path):
    program = branched_program(3, "if", SEQUENTIAL, schedule=Schedule(steps), low=-9, high=9)
    check_round_trip(program, tmp_path / "x.nir")


def check_round_trip(program, path):
    write_nir(program, path, accept_hard_reset=True)
    back = read_nir(path)
    assert back.hash == program.hash
    assert back.structure() == program.structure()
    assert back.provenance == program.provenance
    for name, array in program.arrays().items():
        assert np.array_equal(back.arrays()[name], array), name


def interpret(graph, sample):
    """Outputs of all nodes for one step from rest, by NIR's words: `>`, and currents add."""
    order, values = list(graph.nodes), {"input": sample.astype(object)}
    incoming = {name: [a for a, b in graph.edges if b == name] for name in order}
    while len(values) < len(order):
        for name in order:
            if name in values or not all(source in values for source in incoming[name]):
                continue
            node = graph.nodes[name]
            x = sum(values[source] for source in incoming[name])
            if isinstance(node, nir.Conv2d):
                pairs = (tuple(node.stride), tuple(node.padding), tuple(node.dilation))
                y = convolve(x, node.weight.astype(int), *pairs, int(node.groups))
                values[name] = y + node.bias.astype(int)[:, None, None]
            elif isinstance(node, nir.Affine):
                values[name] = node.weight.astype(int).astype(object).dot(x) + node.bias.astype(int)
            elif isinstance(node, nir.Flatten):
                values[name] = x.reshape(-1)
            elif isinstance(node, nir.IF):
                assert (node.v_reset == 0).all()
                assert (node.r == 1).all()
                values[name] = (x > node.v_threshold).astype(int).astype(object)
            elif isinstance(node, nir.Scale):
                assert (node.scale == 1).all()
                values[name] = x
            else:
                values[name] = x
    return values


@pytest.mark.parametrize("seed", range(4))
def test_one_step_is_exact_for_any_tool(seed):
    programs = (
        random_program(seed, "if", schedule=Schedule(1)),
        branched_program(seed, "if", SEQUENTIAL, schedule=Schedule(1), low=-9, high=9),
    )
    for program in programs:
        inputs = random_inputs(program, 2, seed)
        expected = simulate(program, inputs, mode=Mode.FULL)
        graph = as_graph(program)
        for index, sample in enumerate(inputs):
            values = interpret(graph, sample)
            for name, spikes in expected.spikes.items():
                assert np.array_equal(values[name].astype(int), spikes[0, index]), name
            assert np.array_equal(values["output"].astype(int), expected.logits[index])


def test_resets_are_not_turned_into_others_silently(tmp_path):
    program = random_program(1, schedule=Schedule(3))
    with pytest.raises(TargetError, match="no reset by subtraction"):
        write_nir(program, tmp_path / "x.nir")
    assert not list(tmp_path.iterdir())
    entries = write_nir(program, tmp_path / "x.nir", accept_hard_reset=True)
    assert {e.where for e in entries if e.what == "reset by subtraction"} == {
        p.name for p in program.spiking
    }
    one_step = ledger(random_program(1, schedule=Schedule(1)))
    assert {e.fate for e in one_step if e.what == "initial potential"} == {Fate.FOLDED}
    assert not any(e.what == "reset by subtraction" for e in one_step)


def test_what_nir_has_no_node_for(tmp_path):
    with pytest.raises(TargetError, match="takes spikes back, sends several") as found:
        write_nir(random_program(1, "cif", schedule=Schedule(2, 3)), tmp_path / "x.nir")
    assert found.value.node == "conv0"
    with pytest.raises(TargetError, match="takes spikes back, sends several"):
        write_nir(branched_program(1, "if", ["max"], schedule=Schedule(1)), tmp_path / "x.nir")
    for more in ((2, 0), (1, 1)):
        uneven = random_program(1, convs=((3, 3, 1, 1, 1, 1, *more),), schedule=Schedule(1))
        with pytest.raises(TargetError, match="no transposed convolution, and pads both sides"):
            write_nir(uneven, tmp_path / "x.nir")
    wide = one_convolution(np.full((1, 1, 3, 3), 1 << 13))
    (conv, readout) = wide.populations
    shifted = replace(conv.synapses[0], weight_exponent=12)
    wide = replace(wide, populations=(replace(conv, synapses=(shifted,)), readout))
    with pytest.raises(TargetError, match="not exact in NIR's float32"):
        write_nir(wide, tmp_path / "x.nir", accept_hard_reset=True)


def test_graphs_that_are_no_programs(tmp_path):
    program = random_program(1, schedule=Schedule(1))
    path = tmp_path / "x.nir"
    with pytest.raises(FormatError, match="no such file"):
        read_nir(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        read_nir(path)

    def changed(change):
        graph = as_graph(program)
        header = json.loads(graph.metadata["spikeport"])
        change(graph, header)
        if "spikeport" in graph.metadata:
            graph.metadata["spikeport"] = json.dumps(header)
        nir.write(str(path), graph)

    changed(lambda graph, header: graph.metadata.clear())
    with pytest.raises(FormatError, match="not written by this project"):
        read_nir(path)
    changed(lambda graph, header: header.update(version=9))
    with pytest.raises(FormatError, match="unknown version"):
        read_nir(path)

    def fraction(graph, header):
        graph.nodes["conv0:synapse0"].weight[0, 0, 0, 0] += 0.5

    def uneven(graph, header):
        graph.nodes["conv0"].v_threshold[0, 0, 0] += 1

    def unknown(graph, header):
        header["populations"][0]["neuron"] = "CIF"

    for change in (fraction, uneven, unknown, lambda graph, header: header.pop("input")):
        changed(change)
        with pytest.raises(FormatError, match="do not describe a program"):
            read_nir(path)


def test_the_command(tmp_path):
    (tmp_path / "nets.py").write_text(FACTORIES)
    convert = ("convert", "nets.py:good", "--input-shape", "1,8,8")
    ok(*convert, "--steps", "1", "-o", "one.net", cwd=tmp_path)
    ok(*convert, "--steps", "4", "-o", "four.net", cwd=tmp_path)
    shown = ok("export", "one.net", "-o", "one.nir", cwd=tmp_path).stdout
    assert "initial potential" in shown
    fails(2, "no reset by subtraction", "export", "four.net", "-o", "x.nir", cwd=tmp_path)
    report = ok(
        "export", "four.net", "-o", "four.nir", "--accept-hard-reset", "--json", cwd=tmp_path
    )
    assert "reset by subtraction" in {e["what"] for e in json.loads(report.stdout)["ledger"]}
    for name in ("one", "four"):
        ok("convert", f"{name}.nir", "-o", f"{name}-back.net", cwd=tmp_path)
        back = read_net(tmp_path / f"{name}-back.net")
        assert back.hash == read_net(tmp_path / f"{name}.net").hash
    write_net(random_program(1, "cif", schedule=Schedule(2, 2)), tmp_path / "cif.net")
    fails(2, "takes spikes back", "export", "cif.net", "-o", "x.nir", cwd=tmp_path)


def test_a_changed_graph_is_not_read_as_it_was(tmp_path):
    program, path = random_program(1, schedule=Schedule(1)), tmp_path / "x.nir"

    def weight(graph):
        graph.nodes["conv0:synapse0"].weight[0, 0, 0, 0] += 1

    def edge(graph):
        graph.edges.remove(("conv0:synapse0", "conv0"))

    def resistance(graph):
        graph.nodes["conv0"].r[:] = 2

    for change, said in (
        (weight, "changed after it was written"),
        (edge, "the edges are not those"),
        (resistance, "conv0: r is not that of the program"),
    ):
        graph = as_graph(program)
        change(graph)
        nir.write(str(path), graph)
        with pytest.raises(FormatError, match=said):
            read_nir(path)
    graph = as_graph(program)
    header = json.loads(graph.metadata["spikeport"])
    header["provenance"]["seed"] = 8
    graph.metadata["spikeport"] = json.dumps(header)
    nir.write(str(path), graph)
    with pytest.raises(FormatError, match="changed since it was written"):
        read_nir(path)
    # As files from before there were hashes.
    del header["sha256"], header["program_hash"]
    graph.metadata["spikeport"] = json.dumps(header)
    nir.write(str(path), graph)
    assert read_nir(path).hash == program.hash
    assert not has_hash(path)
