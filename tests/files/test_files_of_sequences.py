"""Programs whose inputs change over time, in every file format and on other runtimes."""

import importlib.util
from dataclasses import replace

import h5py
import nir
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spikeport
from exports.c import write_c
from exports.netx import read_net, write_net, write_stock_net
from exports.nir import read_nir, write_nir
from exports.simulators import FILES, TOOLS
from spikeport.backends import Onnx
from tests.files.test_c_source import made
from tests.networks import BLOCKS, branched_program, per_step, random_inputs, random_program
from tests.oracles import net_file
from toolchain.canonical import canonical_json
from toolchain.documents import parse_json
from toolchain.errors import FormatError, TargetError
from toolchain.program.int_program import Schedule
from toolchain.simulator.quantized_network import quantized_counts
from toolchain.simulator.reference import simulate

VERSION = "spikeport/format_version"


def some_program(kind="if", blocks=("residual", "max"), sleep=2, **how):
    schedule = Schedule(3, sleep if kind == "cif" else 0)
    how = {"schedule": schedule, "low": -9, "high": 9, **how}
    return per_step(branched_program(3, kind, blocks, **how))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(["if", "cif"]),
    block=st.sampled_from(sorted(BLOCKS)),
)
def test_net_files_hold_them(seed, kind, block, tmp_path_factory):
    program = per_step(branched_program(seed, kind, (block,)))
    path = tmp_path_factory.mktemp("net") / "a.net"
    write_net(program, path)
    back = read_net(path)
    assert (back.hash, back.structure()) == (program.hash, program.structure())
    assert back.input.per_step


@pytest.mark.parametrize("kind", ["if", "cif"])
def test_the_document_says_all_of_them(kind, tmp_path):
    """The interpreter written from FORMAT.md alone gives the same digests and outputs."""
    program = some_program(kind)
    write_net(program, tmp_path / "a.net")
    net = net_file.read(tmp_path / "a.net")
    assert net_file.program_hash(net) == net.stated_hash == program.hash
    inputs = random_inputs(program, 3)
    digests, outputs = net_file.run(net, inputs)
    recording = simulate(program, inputs)
    for layer, digest in recording.digests.items():
        assert np.array_equal(digests[layer], digest), layer
    assert np.array_equal(outputs["readout"], recording.logits)


def test_only_they_need_version_5(tmp_path):
    program = some_program()
    static = replace(program, input=replace(program.input, per_step=False))
    paths = [tmp_path / "static.net", tmp_path / "per_step.net"]
    for path, one in zip(paths, (static, program), strict=True):
        write_net(one, path)
    versions, headers = [], []
    for path in paths:
        with h5py.File(path) as file:
            versions.append(int(file[VERSION][()]))
            headers.append(parse_json(file["spikeport/header"][()].decode()))
    assert versions == [2, 5]
    assert headers[1]["input"].pop("per_step") is True
    assert headers[0] == headers[1]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_in_an_older_version_they_are_refused(version, tmp_path):
    write_net(some_program(), tmp_path / "a.net")
    with h5py.File(tmp_path / "a.net", "a") as file:
        file[VERSION][()] = version
    with pytest.raises(FormatError, match="changed after it was written"):
        read_net(tmp_path / "a.net")


def test_a_program_made_static_or_not_is_noticed(tmp_path):
    program = some_program()
    for one in (program, replace(program, input=replace(program.input, per_step=False))):
        path = tmp_path / "a.net"
        write_net(one, path)
        with h5py.File(path, "a") as file:
            file[VERSION][()] = 5
            header = parse_json(file["spikeport/header"][()].decode())
            header["input"]["per_step"] = not one.input.per_step
            del file["spikeport/header"]
            file["spikeport/header"] = canonical_json(header)
        with pytest.raises(FormatError, match="changed after it was written"):
            read_net(path)


def test_nir_graphs_hold_them(tmp_path):
    program = some_program(blocks=("residual", "sum"))
    static = replace(program, input=replace(program.input, per_step=False))
    versions = []
    for one in (static, program):
        entries = write_nir(one, tmp_path / "a.nir", accept_hard_reset=True)
        (told,) = [e.consequence for e in entries if e.what == "input quantizer"]
        assert ("one tensor for each step" in told) == one.input.per_step
        back = read_nir(tmp_path / "a.nir")
        assert (back.hash, back.structure()) == (one.hash, one.structure())
        graph = nir.read(tmp_path / "a.nir")
        versions.append(parse_json(graph.metadata["spikeport"])["version"])
        # NIR's input is per step by nature: it has the shape of one tensor.
        assert graph.nodes["input"].input_type["input"].tolist() == list(one.input.shape)
    assert versions == [1, 2]


@pytest.mark.parametrize(("kind", "sleep"), [("if", 0), ("cif", 0), ("cif", 3)])
def test_onnx_runs_them(kind, sleep, tmp_path):
    program = some_program(kind, sorted(BLOCKS), sleep, signed_input=True)
    inputs = random_inputs(program, 3)
    expected = simulate(program, inputs)
    comparison = spikeport.compare(expected, Onnx().run(program, inputs))
    assert comparison.equal, comparison.first
    spikeport.export(program, tmp_path / "a.onnx", "onnx")
    assert np.array_equal(outputs(tmp_path / "a.onnx", inputs), expected.logits)
    (given,) = onnx.load(tmp_path / "a.onnx").graph.input
    sizes = [d.dim_value or d.dim_param for d in given.type.tensor_type.shape.dim]
    assert sizes == ["N", 3, 2, 6, 5]


def outputs(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": inputs.astype(np.int32)})
    return found


def test_settled_onnx_sums_them(tmp_path):
    program = some_program("cif")
    inputs = random_inputs(program, 3)
    spikeport.export(program, tmp_path / "a.onnx", "onnx", settled=True)
    _, expected = quantized_counts(program, inputs)
    assert np.array_equal(outputs(tmp_path / "a.onnx", inputs), expected["readout"])
    with pytest.raises(TargetError, match="takes one tensor"):
        spikeport.export(program, tmp_path / "b.onnx", "qonnx")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("kind", ["if", "cif"])
def test_c_source_runs_them(kind, compiler, tmp_path):
    """Step by step, and as whole samples: the readout's sums are those of the reference."""
    program = some_program(kind, sorted(BLOCKS), signed_input=True)
    inputs = random_inputs(program, 2)
    whole = simulate(program, inputs)
    write_c(program, tmp_path, inputs, whole)
    steps = program.schedule.num_steps
    told = f"2 samples of {steps} steps: every bit as in the reference\n"
    assert made(tmp_path, compiler) == (0, told)
    test = tmp_path / "branched_test.c"
    source = test.read_text()
    start = source.index("int main(void)")
    wanted = ", ".join(map(str, whole.logits.ravel()))
    test.write_text(
        source[:start]
        + f"""static const int32_t wanted[] = {{{wanted}}};
int main(void)
{{
    (void)add_spikes, (void)add_potentials, (void)expected;
    for (int sample = 0; sample < 2; sample++) {{
        branched_run(&state, inputs[sample]);
        for (int i = 0; i < 4; i++)
            if (state.output[i] != wanted[4 * sample + i]) return 1;
    }}
    return 0;
}}
"""
    )
    assert made(tmp_path, compiler)[0] == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_simulators_run_them(tool, tmp_path):
    program = some_program(blocks=("residual", "max", "sum"), signed_input=True)
    program = replace(program, input=replace(program.input, scale=0.5, mean=(0.5, 1), std=(1, 2)))
    inputs = random_inputs(program, 4)
    spikeport.export(program, tmp_path, tool)
    spec = importlib.util.spec_from_file_location("network", tmp_path / FILES[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Network()
    expected = simulate(program, inputs)
    assert np.array_equal(network(torch.from_numpy(inputs))["readout"].numpy(), expected.logits)
    for few in (inputs[:, :2], inputs[:, 0]):
        with pytest.raises(ValueError, match="samples of shape"):
            network(torch.from_numpy(few))
    samples = np.random.default_rng(0).uniform(0, 2, (5, *program.sample_shape))
    graded = network.graded(torch.from_numpy(samples)).numpy()
    assert np.array_equal(graded, program.input.quantize(samples))


def test_a_stock_file_of_one_step_is_the_same(tmp_path):
    """With one step, a sequence is one tensor, as stock netx takes it."""
    program = random_program(4, hidden=(5,), schedule=Schedule(1))
    for path, one in ((tmp_path / "a.net", program), (tmp_path / "b.net", per_step(program))):
        write_stock_net(one, path)
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()
