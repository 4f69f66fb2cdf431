"""The import of an ONNX graph is held against onnxruntime whenever a network is opened."""

import importlib.util

import numpy as np
import pytest
import torch

import spikeport
from tests.command_line import here
from tests.onnx_files import f32, node, normal, write
from toolchain.conversion.frontend.onnx_import.call import MAKERS
from toolchain.errors import ConversionError

LAYERS = [
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
    node("Relu", "a", "b"),
    node("Flatten", "b", "f"),
    node("Gemm", "f v c", "y"),
]
WEIGHTS = {"w": normal(3, 2, 3, 3), "v": normal(48, 5), "c": normal(5)}


def compared(path, **how):
    """What a check of the file says of onnxruntime."""
    (note,) = [n for n in spikeport.check(path, **how).notes if "onnxruntime" in n]
    return note


@pytest.mark.parametrize("batch", ["N", 1, 3])
@pytest.mark.parametrize("kind", [1, 10])
def test_a_graph_is_compared(batch, kind, tmp_path):
    """For any number of samples that the file was exported for, in float32 and float16."""
    dtype = {1: np.float32, 10: np.float16}[kind]
    weights = {name: value.astype(dtype) for name, value in WEIGHTS.items()}
    path = write(tmp_path / "net.onnx", LAYERS, [batch, 2, 4, 4], weights, kind=kind)
    note = compared(path)
    assert note.startswith("net.onnx was compared with onnxruntime on 8 samples: outputs differ")
    found = float(note.split("at most ")[1].split()[0])
    assert found < {1: 1e-6, 10: 1e-2}[kind]


def test_double_precision_is_compared_in_double_precision(tmp_path):
    weights = {"w": normal(6, 4).astype(np.float64)}
    path = write(tmp_path / "net.onnx", [node("MatMul", "x w")], ["N", 6], weights, kind=11)
    assert float(compared(path).split("at most ")[1].split()[0]) < 1e-14


def test_channels_last_sequences_and_several_outputs(tmp_path):
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "a")]
    nodes += [node("Relu", "a", "b"), node("Conv", "b u", "y"), node("Conv", "b u", "z")]
    constants = {"w": normal(3, 2, 3, 3), "u": normal(4, 3, 1, 1)}
    path = write(tmp_path / "k.onnx", nodes, ["N", 6, 5, 2], constants, outputs=("y", "z"))
    assert "was compared" in compared(path)
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b u")]
    constants = {"w": normal(3, 2, 3), "u": normal(4, 3, 1)}
    assert "was compared" in compared(write(tmp_path / "s.onnx", nodes, ["N", 2, 9], constants))


@pytest.mark.parametrize("operator", ["Conv", "Relu", "Gemm"])
def test_an_operator_that_is_read_wrongly_is_an_error(operator, tmp_path, monkeypatch):
    """By a thousandth, which no later check would see."""
    right = MAKERS[operator]

    def wrong(call):
        made = right(call)
        return torch.nn.Sequential(made, Scale()) if isinstance(made, torch.nn.Module) else made

    monkeypatch.setitem(MAKERS, operator, wrong)
    path = write(tmp_path / "net.onnx", LAYERS, ["N", 2, 4, 4], WEIGHTS)
    with pytest.raises(ConversionError, match="not read as onnxruntime") as error:
        spikeport.check(path)
    assert error.value.node == "net.onnx"


class Scale(torch.nn.Module):
    def forward(self, x):
        return x * 1.001


QDQ = [
    node("QuantizeLinear", "x si zi", "qx", name="in"),
    node("DequantizeLinear", "qx si zi", "dx"),
    node("Gemm", "dx v c", "a"),
    node("Relu", "a", "b"),
    node("QuantizeLinear", "b sm zm", "qb", name="middle"),
    node("DequantizeLinear", "qb sm zm", "db"),
    node("Gemm", "db u d", "h"),
    node("QuantizeLinear", "h so zo", "qh", name="out"),
    node("DequantizeLinear", "qh so zo", "dh"),
    node("Softmax", "dh", "y"),
]
SCALES = {
    "si": np.float32(0.1), "zi": np.uint8(0), "sm": np.float32(0.25), "zm": np.uint8(0),
    "so": np.float32(0.5), "zo": np.int8(5),
    "v": normal(6, 7), "c": normal(7), "u": normal(7, 4), "d": normal(4),
}  # fmt: skip


def test_quantizers_are_compared_without_those_at_the_ends(tmp_path, monkeypatch):
    """These have coarse steps, which the program has not: a comparison with them would fail."""
    path = write(tmp_path / "net.onnx", QDQ, ["N", 6], SCALES)
    note = compared(path)
    assert float(note.split("at most ")[1].split()[0]) < 1e-5
    right = MAKERS["QuantizeLinear"]

    def wrong(call):
        made = right(call)
        return torch.nn.Sequential(Shift(), made) if isinstance(made, torch.nn.Module) else made

    monkeypatch.setitem(MAKERS, "QuantizeLinear", wrong)
    with pytest.raises(ConversionError, match="not read as onnxruntime"):
        spikeport.check(path)


class Shift(torch.nn.Module):
    def forward(self, x):
        return x + 0.125


def test_what_onnxruntime_cannot_run_is_said(tmp_path):
    quant = node("Quant", "b s z n", "q", domain="qonnx.custom_op.general", signed=0)
    nodes = [node("Gemm", "x v c", "a"), node("Relu", "a", "b"), quant, node("Gemm", "q u d")]
    constants = SCALES | {"s": f32(0.25), "z": f32(0.0), "n": f32(4.0)}
    path = write(tmp_path / "net.onnx", nodes, ["N", 6], constants)
    assert "net.onnx was not compared: onnxruntime cannot run it (" in compared(path)


def test_outputs_that_are_not_finite_are_said(tmp_path):
    huge = {"w": np.full((4, 3), 3e38, np.float32)}
    path = write(tmp_path / "net.onnx", [node("MatMul", "x w")], ["N", 4], huge)
    assert compared(path) == "net.onnx was not compared: onnxruntime's outputs are not finite"


def test_without_onnxruntime_it_is_said(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "onnxruntime" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(
        "toolchain.conversion.frontend.onnx_import.runtime.find_spec", hidden, raising=True
    )
    path = write(tmp_path / "net.onnx", LAYERS, ["N", 2, 4, 4], WEIGHTS)
    note = compared(path)
    assert "not compared with onnxruntime, which is not installed" in note
    assert "pip install 'spikeport[onnxruntime]'" in note


def test_the_command_line_compares_on_calibration_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).random((20, 2, 4, 4)).astype(np.float32)
    np.savez("data.npz", train_samples=samples, train_labels=np.arange(20) % 5)
    path = write(tmp_path / "net.onnx", LAYERS, ["N", 2, 4, 4], WEIGHTS)
    how = ("--calibrate", "npz:data.npz", "-o", "net.net")
    end = here("convert", path, *how)
    assert end.exit_code == 0, end.output
    assert "net.onnx was compared with onnxruntime on 8 samples" in " ".join(end.output.split())
    few = samples[:, :, :3]
    np.savez("data.npz", train_samples=few, train_labels=np.arange(20) % 5)
    end = here("convert", path, *how)
    assert (end.exit_code, end.error.node) == (2, "input")
