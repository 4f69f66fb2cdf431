"""Quantizers in ONNX files: pairs of QuantizeLinear and DequantizeLinear, and those of QONNX."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import spikeport
from spikeport.trained_network import InputDescription, load_network
from tests.onnx_files import (
    QONNX,
    convolutional,
    digits,
    f32,
    node,
    normal,
    onnx,
    runtime,
    same_as_runtime,
    weights,
    write,
)
from toolchain.conversion.frontend.onnx_import.module import open_onnx
from toolchain.conversion.frontend.onnx_import.quantizers import OnnxQuantizer
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import ActivationMode, activation_mode
from toolchain.program.float_program import Activation


def quantized(tmp_path, *, zero=0, kind=np.uint8, relu=True, levels=255, per_channel=False):
    """Dense layers with quantizers of the weights and between the layers."""
    rng = np.random.default_rng(3)
    scales = rng.uniform(0.01, 0.02, 6).astype(np.float32) if per_channel else np.float32(0.015)
    nodes = [
        node("DequantizeLinear", "w1 sw zw", "d1", axis=0),
        node("Gemm", "x d1 b1", "h", transB=1),
        *([node("Relu", "h", "r")] if relu else []),
        node("QuantizeLinear", f"{'r' if relu else 'h'} sa za", "q", name="/act/Quantize"),
        node("DequantizeLinear", "q sa za", "a"),
        node("MatMul", "a w2"),
    ]
    constants = {
        "w1": rng.integers(-127, 128, (6, 4)).astype(np.int8),
        "sw": scales,
        "zw": np.zeros_like(scales, np.int8),
        "b1": rng.normal(0, 0.5, 6).astype(np.float32),
        "sa": np.float32(2.0 / levels),
        "za": np.array(zero, kind),
        "w2": weights(rng, 6, 3),
    }
    return write(tmp_path / "net.onnx", nodes, ["N", 4], constants)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"relu": False},
        {"zero": -128, "kind": np.int8, "per_channel": True},
        {"kind": np.int8, "levels": 127},
    ],
    ids=["uint8", "clipping", "int8-offset", "int8-behind-relu"],
)
def test_pairs_of_quantizers_are_quantized_activations(form, tmp_path):
    """Weights are what the pairs make of them; activations get the pair's threshold and levels."""
    path = quantized(tmp_path, **form)
    x = np.random.default_rng(4).uniform(0, 1, (50, 4)).astype(np.float32)
    same_as_runtime(path, x)
    folded, _ = fold(trace(open_onnx(path), (4,)))
    (layer,) = [n for n in folded.nodes if isinstance(n, Activation)]
    assert layer.levels == form.get("levels", 255)
    np.testing.assert_allclose(layer.threshold, 2.0, rtol=1e-6)


def test_a_tie_between_levels_goes_to_the_even_one_and_elsewhere_nothing_differs():
    """ONNX rounds half to even, an IF neuron fires at its threshold: half goes up."""
    activation = OnnxQuantizer(torch.tensor(0.5), 7, rounds=True, kind="onnx")
    values = torch.tensor([-1.0, 0.25, 0.75, 1.25, 0.74, 0.76, 3.4, 9.0])
    expected = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 1.0, 3.5, 3.5])
    assert torch.equal(activation(values), expected)
    up = spikeport.QCFS(levels=7, threshold=3.5)(values)
    assert (up != expected).tolist() == [False, True, False, True, False, False, False, False]
    with activation_mode(activation, ActivationMode.CLIPPED):
        assert torch.equal(activation(values), values.clamp(0, 3.5))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"zero": 100}, "both signs"),
        ({"kind": np.int8, "relu": False, "levels": 127}, "negative values"),
    ],
    ids=["zero-point", "signed-without-relu"],
)
def test_quantizers_of_both_signs_are_refused(form, message, tmp_path):
    with pytest.raises(UnsupportedModuleError, match=message) as refusal:
        spikeport.convert(quantized(tmp_path, **form))
    assert refusal.value.node == "act_Quantize"


def test_quantizers_at_the_ends_are_left_out_with_a_note(tmp_path):
    """The input has its own quantizer in a program, and the outputs are those before the last."""
    nodes = [
        node("QuantizeLinear", "x si zi", "qx", name="in"),
        node("DequantizeLinear", "qx si zi", "dx"),
        node("Gemm", "dx w b", "h"),
        node("QuantizeLinear", "h so zo", "qh", name="out"),
        node("DequantizeLinear", "qh so zo", "dh"),
        node("Softmax", "dh"),
    ]
    constants = {
        "si": np.float32(1 / 255), "zi": np.uint8(0), "so": np.float32(0.1), "zo": np.int8(5),
        "w": normal(4, 3), "b": normal(3),
    }  # fmt: skip
    path = write(tmp_path / "net.onnx", nodes, ["N", 4], constants)
    module = open_onnx(path)
    assert list(dict(module.named_children())) == ["Gemm_2", "Softmax_5"]
    noted = load_network(str(path), None, InputDescription(None, None, 8, (0.0,), (1.0,))).notes
    assert [note.partition(":")[0] for note in noted[:2]] == ["in", "out"]
    assert "255 steps of 0 .. 1" in noted[0]


@pytest.mark.parametrize("second", [0.02, 0.03])
def test_a_quantizer_that_repeats_another_is_left_out(second, tmp_path):
    """As quantizing tools put them behind every pool and reshape; one of another scale stays."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("QuantizeLinear", "r s z", "q1", name="first"),
        node("DequantizeLinear", "q1 s z", "d1"),
        node("MaxPool", "d1", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("QuantizeLinear", "p t z", "q2", name="second"),
        node("DequantizeLinear", "q2 t z", "d2"),
        node("Flatten", "d2", "f"),
        node("MatMul", "f v"),
    ]
    constants = {
        "w": normal(3, 2, 3, 3), "s": np.float32(0.02), "t": np.float32(second),
        "z": np.uint8(0), "v": normal(12, 2),
    }  # fmt: skip
    path = write(tmp_path / "net.onnx", nodes, ["N", 2, 6, 6], constants)
    module = same_as_runtime(path, normal(4, 2, 6, 6), tolerance=1e-4)
    kept = [name for name, _ in module.named_children() if name in ("first", "second")]
    assert kept == (["first"] if second == 0.02 else ["first", "second"])


@pytest.mark.parametrize("kind", ["QUInt8", "QInt8"])
def test_a_network_that_onnxruntime_quantized(kind, tmp_path):
    """Quantizers everywhere, as its static quantization puts them; weights per channel."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path, made = convolutional(tmp_path / "net.onnx"), tmp_path / "quantized.onnx"
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, path)
    folded = tmp_path / "folded.onnx"
    quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
    types = quantization.QuantType
    quantization.quantize_static(
        folded,
        made,
        SimpleNamespace(get_next=partial(next, iter([{"x": digits(300)[0]}]), None)),
        activation_type=types[kind],
        weight_type=types.QInt8,
        per_channel=True,
    )
    x, _ = digits(300)
    conversion = spikeport.convert(made, calibrate=x, steps=64)
    (found,) = spikeport.run(conversion, x).outputs.values()
    assert (found.argmax(1) == runtime(made, x)[0].argmax(1)).mean() > 0.95


def test_operations_on_integers_of_a_quantizer_are_refused(tmp_path):
    nodes = [node("Neg", "x", "n"), node("QuantizeLinear", "n s", "q"), node("Relu", "q", "y")]
    path = write(tmp_path / "net.onnx", nodes, ["N", 4], {"s": np.float32(1)}, opset=14)
    with pytest.raises(UnsupportedModuleError, match="integers of a quantizer"):
        open_onnx(path)


def test_a_pair_of_different_scales_is_refused(tmp_path):
    nodes = [
        node("Relu", "x", "r"),
        node("QuantizeLinear", "r s", "q"),
        node("DequantizeLinear", "q t", "d"),
        node("MatMul", "d w"),
    ]
    constants = {"s": np.float32(1), "t": np.float32(2), "w": normal(4, 2)}
    with pytest.raises(UnsupportedModuleError, match="same scale"):
        open_onnx(write(tmp_path / "net.onnx", nodes, ["N", 4], constants))


def qonnx(tmp_path, signed=0, bits=3.0, scale=0.1, mode="ROUND"):
    """A convolution with quantized weights and a quantized activation, in QONNX's operators."""
    nodes = [
        node("Quant", "w sw z b4", "qw", domain=QONNX, signed=1, narrow=1, rounding_mode="ROUND"),
        node("Conv", "x qw", "c"),
        node("Relu", "c", "r"),
        node("Quant", "r s z bits", "a", domain=QONNX, name="act", signed=signed, narrow=0,
             rounding_mode=mode),
        node("Conv", "a v", "y"),
    ]  # fmt: skip
    rng = np.random.default_rng(5)
    constants = {
        "w": weights(rng, 4, 2, 3, 3), "sw": np.float32(0.05), "z": np.float32(0), "b4": f32(4),
        "s": np.float32(scale), "bits": f32(bits), "v": weights(rng, 3, 4, 6, 6),
    }  # fmt: skip
    return write(tmp_path / "net.onnx", nodes, ["N", 2, 8, 8], constants), constants


@pytest.mark.parametrize("mode", ["ROUND", "FLOOR"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_qonnx_quantizers_by_their_formula(mode, per_channel, tmp_path):
    """Weights of 4 bits without -8, activations of 3 bits: against a plain computation."""
    scale = np.float32(0.1)
    if per_channel:
        scale = np.array([0.1, 0.07, 0.03, 0.08], np.float32).reshape(1, 4, 1, 1)
    path, c = qonnx(tmp_path, scale=scale, mode=mode)
    x = torch.from_numpy(np.random.default_rng(6).uniform(0, 1, (5, 2, 8, 8)))
    weight = np.clip(np.round(c["w"] / c["sw"]), -7, 7) * c["sw"]
    hidden = torch.relu(F.conv2d(x, torch.from_numpy(weight).double()))
    rounding = np.round if mode == "ROUND" else np.floor
    s = np.float64(scale)
    level = np.clip(rounding(hidden.numpy() / s), 0, 7)
    assert level.max() == 7
    expected = F.conv2d(torch.from_numpy(level * s), torch.from_numpy(c["v"]).double())
    with torch.no_grad():
        found = open_onnx(path).double()(x)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)
    conversion = spikeport.convert(path, neuron="cif", steps=7)
    assert conversion.program.schedule.wake_steps == 7


@pytest.mark.parametrize("form", [{"mode": "CEIL"}, {"mode": "HALF_UP"}, {"bits": [3.0, 4.0]}])
def test_other_qonnx_quantizers_are_refused(form, tmp_path):
    bits = form.pop("bits", 3.0)
    path, _ = qonnx(tmp_path, **form)
    if isinstance(bits, list):
        model = onnx.load(path)
        kept = [t for t in model.graph.initializer if t.name != "bits"]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, onnx.numpy_helper.from_array(f32(*bits), "bits")])
        onnx.save(model, path)
    with pytest.raises(UnsupportedModuleError) as refusal:
        open_onnx(path)
    assert refusal.value.node == "act"
