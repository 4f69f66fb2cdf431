"""Nodes of NIR graphs that are called what others call their ends, or what nodes of ours are."""

import itertools
import warnings

import nir
import nirtorch
import numpy as np
import pytest
import torch
from torch import nn

from exports.netx import read_net
from exports.nir import read_foreign_nir, read_nir, write_nir
from exports.nir.graph import as_graph
from hw_models.profile import load_profile
from tests.command_line import ok
from tests.networks import branched_program, random_inputs, random_program, renamed
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode
from toolchain.simulator.reference import simulate

LIMITS = load_profile("loihi2").as_target_limits()


class Fires(nn.Module):
    def __init__(self, node):
        super().__init__()
        self.threshold = torch.from_numpy(node.v_threshold)

    def forward(self, x):
        return (x > self.threshold).float()


def linear(node):
    made = nn.Linear(*node.weight.shape[::-1])
    made.weight.data, made.bias.data = map(torch.tensor, (node.weight, node.bias))
    return made


def conv(node):
    c_out, c_in, *kernel = node.weight.shape
    geometry = (tuple(v) for v in (kernel, node.stride, node.padding, node.dilation))
    made = nn.Conv2d(c_in, c_out, *geometry)
    made.weight.data, made.bias.data = map(torch.tensor, (node.weight, node.bias))
    return made


MODULES = {
    nir.IF: Fires,
    nir.Affine: linear,
    nir.Conv2d: conv,
    nir.Flatten: lambda _: nn.Flatten(1),
    nir.Scale: lambda _: nn.Identity(),
}


@pytest.mark.parametrize(
    "names",
    [["output"], ["a", "output"], ["a", "b", "output"], ["output", "b", "input#2"], ["output#2"]],
)
def test_layers_called_as_ends_are_no_ends_to_other_tools(names, tmp_path):
    """nirtorch makes a torch module of the graph; it answers what the program answers."""
    program = renamed(random_program(2, schedule=Schedule(1)), names)
    inputs = random_inputs(program, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nirtorch's own
        theirs = nirtorch.nir_to_torch(as_graph(program), MODULES)
    with torch.no_grad():
        found = theirs(torch.from_numpy(inputs).float())
    found = found[0] if isinstance(found, tuple) else found
    assert np.array_equal(found.long().numpy(), simulate(program, inputs).logits)
    write_nir(program, tmp_path / "x.nir")
    assert read_nir(tmp_path / "x.nir").hash == program.hash


@pytest.mark.parametrize("names", [["output"], ["a", "b", "output"]])
def test_several_outputs_called_as_ends(names, tmp_path):
    blocks = ("residual",)
    program = branched_program(1, "if", blocks, schedule=Schedule(1), low=-9, high=9, heads=2)
    program = renamed(program, names)
    write_nir(program, tmp_path / "x.nir")
    assert read_nir(tmp_path / "x.nir").hash == program.hash


def row(names):
    """Two layers of neurons between ends, written as another tool would."""
    rng = np.random.default_rng(0)

    def dense(outputs, inputs):
        weight = rng.integers(-6, 7, (outputs, inputs)).astype(float)
        return nir.Affine(weight, rng.integers(-2, 3, outputs).astype(float))

    def fires(size):
        return nir.IF(np.ones(size), np.full(size, 3.0), np.zeros(size))

    ends = nir.Input({"input": np.array([4])}), nir.Output({"output": np.array([3])})
    nodes = (ends[0], dense(6, 4), fires(6), dense(3, 6), fires(3), ends[1])
    edges = list(itertools.pairwise(names))
    return nir.NIRGraph(dict(zip(names, nodes, strict=True)), edges, type_check=False)


PLAIN = ("input", "a", "b", "c", "d", "output")


def converted(names, path):
    nir.write(str(path), row(names))
    program, _ = read_foreign_nir(path, 1, None)
    quantizer = InputQuantizer((4,), 1.0, bits=3)
    options = ConversionOptions("if", Schedule(1))
    return convert(program, quantizer, options, LIMITS, name="x").program


@pytest.mark.parametrize(
    "names",
    [
        ("x", "input", "b", "c", "d", "y"),
        ("x", "a", "input", "c", "d", "y"),
        ("x", "a", "b", "c", "input", "y"),
        ("input", "output", "b", "c", "d", "y"),
        ("input", "a", "b", "c", "output", "y"),
        ("output", "a", "b", "c", "d", "input"),
        ("x", "output", "input", "input#2", "output#2", "y"),
        ("x", "spikes", "b", "c", "d", "y"),
        ("x", "a", "b", "c", "spikes", "y"),
        ("x", "b.unit", "b", "b#2", "d", "y"),
        ("x", "a", "b", "d.unit", "d", "spikes"),
    ],
)
def test_graphs_of_other_tools_are_what_their_nodes_are(names, tmp_path):
    """Whatever the nodes are called, the network does the same."""
    expected, found = converted(PLAIN, tmp_path / "a.nir"), converted(names, tmp_path / "b.nir")
    inputs = np.random.default_rng(1).integers(0, 8, (40, 4))
    theirs, ours = (simulate(p, inputs, mode=Mode.FULL) for p in (expected, found))
    assert theirs.logits.any()
    assert np.array_equal(theirs.logits, ours.logits)
    for one, other in zip(theirs.spikes.values(), ours.spikes.values(), strict=True):
        assert np.array_equal(one, other)


NETWORK = """
from torch import nn
from toolchain.learning.activations import QCFS

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = nn.Linear(4, 6)
        self.fires = QCFS(1, 1.0)
        self.output = nn.Linear(6, 5)
        self.more = QCFS(1, 1.0)
        self.spikes = nn.Linear(5, 3)

    def forward(self, x):
        return self.spikes(self.more(self.output(self.fires(self.input(x)))))
"""


def test_the_commands(tmp_path):
    (tmp_path / "nets.py").write_text(NETWORK)
    made = ("convert", "nets.py:Named", "--input-shape", "4", "--steps", "1", "-o", "x.net")
    ok(*made, cwd=tmp_path)
    ok("export", "x.net", "-o", "x.nir", cwd=tmp_path)
    ok("convert", "x.nir", "-o", "y.net", cwd=tmp_path)
    first, second = (read_net(tmp_path / name) for name in ("x.net", "y.net"))
    assert [p.name for p in first.populations] == ["input#2", "output", "spikes"]
    assert first.hash == second.hash
    nir.write(str(tmp_path / "z.nir"), row(("x", "input", "b", "output", "spikes", "y")))
    foreign = ("--input-range", "0,7", "--input-bits", "3", "--steps", "1")
    ok("convert", "z.nir", *foreign, "-o", "z.net", cwd=tmp_path)
    names = [p.name for p in read_net(tmp_path / "z.net").populations]
    assert names == ["input#2", "output", "spikes#2"]
