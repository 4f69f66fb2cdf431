"""Programs as ONNX graphs, run by onnxruntime: every bit as the reference simulator's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

import spikeport
from exports.netx import read_net
from spikeport.backends import Onnx
from tests.command_line import here
from tests.networks import branched_program, random_program
from toolchain.errors import TargetError
from toolchain.program.int_program import Schedule
from toolchain.recording import Recording
from toolchain.simulator.quantized_network import quantized_counts

PACK = Path(__file__).parents[1] / "conformance" / "pack"
NAMES = sorted(p.stem for p in PACK.glob("*.net"))


def outputs(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"input": inputs.astype(np.int32)})
    return dict(zip(names, found, strict=True))


def inputs_of(program, count=5):
    held = program.input.range
    shape = (count, *program.sample_shape)
    return np.random.default_rng(0).integers(held.low, held.high, shape, endpoint=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_the_conformance_pack(name, tmp_path):
    """Spikes and potentials of every step as a backend, accumulators at the end as a file."""
    program, frozen = read_net(PACK / f"{name}.net"), Recording.load(PACK / f"{name}.npz")
    inputs = np.load(PACK / f"{name}-inputs.npy").astype(np.int32)
    found = Onnx().run(program, inputs)
    comparison = spikeport.compare(frozen, found)
    assert comparison.equal
    assert comparison.compared
    assert spikeport.export(program, tmp_path / "a.onnx", "onnx") == []
    for readout, sums in outputs(tmp_path / "a.onnx", inputs).items():
        assert np.array_equal(sums, frozen.outputs[readout])


@pytest.mark.parametrize("seed", range(6))
def test_full_recordings_of_random_networks(seed, monkeypatch):
    """In several chunks, with a signed input, weights that are shifted, and graded sums."""
    monkeypatch.setattr("exports.onnx.runner.MOST_BYTES", 1 << 13)
    blocks = (("strided", "graded", "upsampled"), ("sum", "overhang", "max"))[seed % 2]
    kind = ("if", "cif")[seed // 3]
    program = branched_program(seed, kind, blocks, signed_input=True, schedule=Schedule(3, 2))
    inputs = inputs_of(program)
    runs = [b.run(program, inputs) for b in (spikeport.Reference("stepwise"), Onnx())]
    assert spikeport.compare(*runs).equal


@pytest.mark.parametrize("name", [name for name in NAMES if "cif" in name])
def test_settled_networks_are_the_closed_form(name, tmp_path):
    program = read_net(PACK / f"{name}.net")
    inputs = inputs_of(program)
    spikeport.export(program, tmp_path / "a.onnx", "onnx", settled=True)
    _, expected = quantized_counts(program, inputs)
    found = outputs(tmp_path / "a.onnx", inputs)
    assert found.keys() == expected.keys()
    for readout, sums in expected.items():
        assert np.array_equal(found[readout], sums)


def test_one_step_of_if_is_settled(tmp_path):
    program = branched_program(4, schedule=Schedule(1))
    inputs = inputs_of(program)
    spikeport.export(program, tmp_path / "a.onnx", "onnx", settled=True)
    recording = spikeport.Reference().run(program, inputs)
    for readout, sums in outputs(tmp_path / "a.onnx", inputs).items():
        assert np.array_equal(sums, recording.outputs[readout])


def test_what_is_not_exact_is_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(TargetError, match="do not settle"):
        spikeport.export(random_program(1), path, "onnx", settled=True)
    with pytest.raises(TargetError, match="cannot watch"):
        spikeport.export(replace(random_program(1), watch_ranges=True), path, "onnx")
    wide = random_program(1, convs=(), hidden=(), shape=(300, 30, 2), low=120)
    wide = replace(wide, input=replace(wide.input, bits=8), state_bits=32)
    with pytest.raises(TargetError, match="float32 does not hold exactly"):
        spikeport.export(wide, path, "onnx")
    long = random_program(1, kind="cif", convs=(), hidden=(), schedule=Schedule(1 << 16))
    with pytest.raises(TargetError, match=r"24 bits|32 bits"):
        spikeport.export(long, path, "onnx", settled=True)
    assert not path.exists()


def test_the_commands(tmp_path):
    program = random_program(2, kind="cif", schedule=Schedule(4, 8))
    spikeport.save(program, tmp_path / "a.net")
    net, graph = str(tmp_path / "a.net"), tmp_path / "a.onnx"
    for settled in ([], ["--settled"]):
        result = here("export", net, "--to", "onnx", "-o", str(graph), *settled)
        assert result.exit_code == 0, result.output
    properties = {p.key: p.value for p in onnx.load(graph).metadata_props}
    assert properties["spikeport.program_hash"] == program.hash
    samples = tmp_path / "x.npz"
    x, y = inputs_of(program, 4).astype(np.float64), np.zeros(4, np.int64)
    np.savez(samples, train_samples=x, train_labels=y, test_samples=x, test_labels=y)
    for backend in ("reference", "onnx"):
        out = str(tmp_path / f"{backend}.npz")
        command = ("run", net, "--data", f"npz:{samples}", "--backend", backend, "-o", out)
        result = here(*command)
        assert result.exit_code == 0, result.output
    result = here("compare", str(tmp_path / "reference.npz"), str(tmp_path / "onnx.npz"))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", [n for n in NAMES if "cif" in n and not n.startswith("sequences")])
def test_qonnx_graphs_by_its_own_executor(name, tmp_path):
    """Float32 with `Quant` nodes, as FPGA tools read them: the closed form, integer by integer."""
    program = read_net(PACK / f"{name}.net")
    inputs = inputs_of(program)
    assert spikeport.export(program, tmp_path / "a.onnx", "qonnx") == []
    model = ModelWrapper(str(tmp_path / "a.onnx")).transform(InferShapes())
    kinds = {node.op_type for node in model.graph.node}
    assert "Quant" in kinds
    assert "Cast" not in kinds
    for values in (*inputs[:, None], np.full_like(inputs[:1], program.input.range.high)):
        _, expected = quantized_counts(program, values)
        found = execute_onnx(model, {"input": values.astype(np.float32)})
        assert found.keys() == expected.keys()
        for readout, sums in expected.items():
            assert np.array_equal(found[readout], sums)


def test_sums_that_float32_does_not_hold_are_no_qonnx(tmp_path):
    long = random_program(1, kind="cif", convs=(), hidden=(), schedule=Schedule(1 << 12))
    with pytest.raises(TargetError, match="24 bits"):
        spikeport.export(long, tmp_path / "a.onnx", "qonnx")
    with pytest.raises(TargetError, match="do not settle"):
        spikeport.export(random_program(1), tmp_path / "a.onnx", "qonnx")
    assert not list(tmp_path.iterdir())
