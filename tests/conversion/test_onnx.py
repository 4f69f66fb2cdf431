"""ONNX files as networks: names, whole networks, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeport
from tests.command_line import fails, ok
from tests.fresh_python import python
from tests.onnx_files import (
    convolutional,
    digits,
    f32,
    i64,
    node,
    normal,
    onnx,
    ort,
    runtime,
    same_as_runtime,
    trained,
    weights,
    write,
)
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.onnx_import import graph as onnx_graph
from toolchain.conversion.frontend.onnx_import.module import open_onnx
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.errors import (
    CheckpointError,
    ConversionError,
    FormatError,
    MissingDependencyError,
    UnsupportedModuleError,
)
from toolchain.program.float_program import Activation, Conv2d
from toolchain.program.neurons import Readout

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"
"""Trained networks of others, beside the repository; not needed."""


@pytest.mark.parametrize("batch", ["N", 1, 64])
def test_a_network_converts_and_has_the_classes_of_onnxruntime(batch, tmp_path):
    """Whatever number of samples the file is for, and with sizes that it computes."""
    path, (x, labels) = convolutional(tmp_path / "net.onnx", batch), digits(300)
    conversion = spikeport.convert(path, calibrate=x, relu_percentile=99.9, steps=32)
    (found,) = spikeport.run(conversion, x).outputs.values()
    expected = runtime(convolutional(tmp_path / "any.onnx"), x)[0].argmax(1)
    assert (expected == labels).mean() > 0.95
    assert (found.argmax(1) == expected).mean() > 0.95
    assert conversion.agreement.fraction > 0.95
    assert conversion.program.name == "net"
    assert conversion.program.provenance["file"] == "net.onnx"


@pytest.mark.parametrize("rule", ["asymmetric floor", "half_pixel round_prefer_floor"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 1]])
def test_networks_that_upsample(pads, rule, tmp_path):
    """Resize by whole factors, also in floor mode, and ConvTranspose with uneven padding."""
    where, nearest = rule.split()
    modes = {"coordinate_transformation_mode": where, "nearest_mode": nearest}
    nodes = [
        node("Conv", "x w1 b1", "c1", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("ConvTranspose", "r1 up", "u", strides=[2, 2], pads=pads, name="up"),
        node("Relu", "u", "r2"),
        node("Resize", "r2 n s", "i", mode="nearest", **modes),
        node("Conv", "i w2", "y", pads=[1, 1, 1, 1]),
    ]
    made = {name: trained()[name] for name in ("w1", "b1", "w2")}
    made |= {"up": normal(8, 8, 3, 3), "n": f32(), "s": f32(1, 1, 2, 3)}
    path = write(tmp_path / "net.onnx", nodes, ["N", 1, 8, 8], made)
    x, _ = digits(6)
    program, _ = fold(trace(open_onnx(path), (1, 8, 8), plain_relu=True))
    relus = [n.name for n in program.nodes if isinstance(n, Activation)]
    found = evaluate(program, torch.from_numpy(x), clipped=relus).numpy()
    assert np.allclose(found, runtime(path, x)[0], rtol=1e-4, atol=1e-4)
    assert [n.upsample for n in program.nodes if isinstance(n, Conv2d)] == [(1, 1), (2, 2), (2, 3)]


def test_names_of_nodes_become_names_of_layers(tmp_path):
    """Without slashes, each once, and the operator where the file names nothing."""
    module = open_onnx(convolutional(tmp_path / "net.onnx"))
    assert list(dict(module.named_children())) == [
        "features_conv1_Conv",
        "features_relu1_Relu",
        "MaxPool_2",
        "features_3_Conv",
        "BatchNormalization_4",
        "features_relu1_Relu#2",
        "AveragePool_6",
        "Reshape_11",
        "fc",
    ]
    with pytest.raises(UnsupportedModuleError) as refusal:
        spikeport.convert(convolutional(tmp_path / "net.onnx"))
    assert str(refusal.value.node).startswith("features_relu1_Relu")
    assert "no threshold" in refusal.value.message


def test_a_name_that_a_module_has_already(tmp_path):
    nodes = [node("Relu", "x", "r", name="forward"), node("Neg", "r", name="half")]
    same_as_runtime(write(tmp_path / "net.onnx", nodes, ["N", 3]), normal(2, 3))


def test_the_command_line(tmp_path):
    """`convert` and `audit --checkpoint` take the file itself; the shape comes from it."""
    path, net = convolutional(tmp_path / "net.onnx"), tmp_path / "net.net"
    calibrate = ("--calibrate", "digits@train", "--relu-percentile", 99.9, "--steps", 16)
    told = ok("convert", path, "-o", net, *calibrate, "--json")
    assert json.loads(told.stdout)["agreement"]["accuracy"] > 0.9
    audited = ("audit", net, "--data", "digits", "--lava", 0, "--budget-samples", 8)
    ok(*audited, "--checkpoint", path)
    fails(2, "knows itself", "convert", path, "-o", net, "--input-shape", "1,9,9")
    other = tmp_path / "other.onnx"
    fails(2, "has its weights", "convert", path, "-o", net, "--weights", other)
    write(other, [node("Flatten", "x", "f"), node("MatMul", "f w")], [1, 1, 8, 8],
          {"w": normal(64, 10)})  # fmt: skip
    fails(2, "is not what the file was converted from", *audited, "--checkpoint", other)


def test_functions_of_the_file_itself(tmp_path):
    """Exporters may write a module as a function of operators; it is inlined."""
    body = [node("Neg", "a", "n"), node("Relu", "n", "b")]
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("local", 1)]
    function = onnx.helper.make_function("local", "Flipped", ["a"], ["b"], body, opsets[:1])
    path = write(tmp_path / "net.onnx", [node("Flipped", "x", domain="local")], ["N", 3])
    model = onnx.load(path)
    model.functions.append(function)
    model.opset_import.append(opsets[1])
    onnx.save(model, path)
    same_as_runtime(path, normal(2, 3))


def test_operators_on_integers_name_the_format_to_export(tmp_path):
    nodes = [node("DynamicQuantizeLinear", "x", "q s z"), node("ConvInteger", "q w")]
    path = write(tmp_path / "net.onnx", nodes, [1, 3, 8, 8], {"w": np.ones((2, 3, 3, 3), np.uint8)})
    with pytest.raises(UnsupportedModuleError, match="not known") as refusal:
        open_onnx(path)
    assert "QDQ" in str(refusal.value.remedy)


def test_results_that_nobody_reads(tmp_path):
    """Indices of a max pool, and parts of a split, of which only one is needed."""
    nodes = [
        node("MaxPool", "x", "p indices", kernel_shape=[2, 2]),
        node("Split", "p", "a b c", axis=1),
        node("Split", "b", "y", axis=2),
    ]
    same_as_runtime(write(tmp_path / "net.onnx", nodes, ["N", 6, 5, 5]), normal(2, 6, 5, 5))


def test_all_unknown_operators_in_one_error(tmp_path):
    """Only those that the outputs need."""
    nodes = [
        node("LSTM", "x w r", "l", name="/rnn/LSTM", hidden_size=2),
        node("TopK", "l k", "t i", name="top", axis=0),
        node("Det", "l", "unused", name="det"),
        node("Relu", "t"),
    ]
    path = write(tmp_path / "net.onnx", nodes, [1, 2, 3], {"w": normal(1, 8, 3)})
    with pytest.raises(UnsupportedModuleError, match="not known") as refusal:
        open_onnx(path)
    assert refusal.value.found == "LSTM: rnn_LSTM\nTopK: top"


REFUSED = {
    "second-result": (
        [node("MaxPool", "x", "p y", kernel_shape=[2, 2])], {}, "only the first result"),
    "training": ([node("Dropout", "x r t")], {"r": np.float32(0.5), "t": np.bool_(True)},
                 "training mode"),
    "weights-of-data": ([node("Conv", "x x")], {}, "computed from data"),
    "cubic": ([node("Resize", "x r s", mode="cubic")], {"r": f32(), "s": f32(1, 1, 2, 2)},
              "of this kind"),
    "wrong-weights": ([node("Conv", "x w")], {"w": normal(2, 7, 3, 3)}, "cannot be computed"),
    "wrong-axes": ([node("Conv", "x w")], {"w": normal(2, 4, 3)}, "number of axes"),
    "unknown-value": ([node("Relu", "nothing")], {}, "no node before it makes"),
    "constant": ([node("Relu", "c")], {"c": normal(3)}, "does not depend"),
    "four-bits": (
        [node("Relu", "x", "r"), node("QuantizeLinear", "r s", "q", output_dtype=21),
         node("DequantizeLinear", "q s")], {"s": np.float32(1)}, "to these numbers"),
    "floats": (
        [node("Relu", "x", "r"), node("QuantizeLinear", "r s", "q", output_dtype=17),
         node("DequantizeLinear", "q s")], {"s": np.float32(1)}, "to these numbers"),
    "bomb": ([node("ConstantOfShape", "s", "c"), node("Add", "x c")],
             {"s": i64(1 << 20, 1 << 20)}, "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_forms_that_are_refused(case, tmp_path):
    nodes, constants, message = REFUSED[case]
    path = write(tmp_path / "net.onnx", nodes, ["N", 4, 6, 6], constants)
    with pytest.raises((UnsupportedModuleError, ConversionError), match=message):
        open_onnx(path)


def test_an_old_opset_is_refused(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Relu", "x")], ["N", 4], opset=6)
    with pytest.raises(UnsupportedModuleError, match="old version"):
        open_onnx(path)


def test_several_inputs_are_refused(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Relu", "x")], ["N", 4])
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("second", 1, [1]))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModuleError, match="several inputs"):
        open_onnx(path)


def test_the_input_shape_is_asked_for_where_the_file_leaves_it_open(tmp_path):
    path = write(tmp_path / "net.onnx", [node("Flatten", "x")], ["N", 3, "H", "W"])
    with pytest.raises(UnsupportedModuleError, match="leaves the input shape open"):
        open_onnx(path)
    with pytest.raises(UnsupportedModuleError, match="not that of the file"):
        open_onnx(path, (4, 5, 6))
    assert open_onnx(path, (3, 5, 6)).sample_shape == (3, 5, 6)
    with pytest.raises(CheckpointError, match="knows itself"):
        spikeport.convert(convolutional(tmp_path / "net.onnx"), input_shape=(1, 9, 9))


def test_weights_in_half_precision_keep_their_values(tmp_path):
    weight = normal(4, 3).astype(np.float16)
    nodes = [node("Cast", "x", "h", to=10), node("MatMul", "h w", "m"), node("Cast", "m", to=1)]
    module = open_onnx(write(tmp_path / "net.onnx", nodes, ["N", 4], {"w": weight}))
    (layer,) = module.children()
    assert np.array_equal(layer.weight.detach().numpy(), weight.T.astype(np.float32))


def test_weights_of_four_bits(tmp_path):
    """Against the numbers themselves."""
    integers = np.arange(-8, 8).reshape(4, 4)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, (4, 4), integers.flatten())
    nodes = [node("DequantizeLinear", "w s", "d", axis=0), node("MatMul", "x d")]
    scales = f32(1, 2, 0.5, 0.25)
    path = write(tmp_path / "net.onnx", nodes, ["N", 4], {"s": scales}, opset=21)
    model = onnx.load(path)
    model.graph.initializer.append(tensor)
    onnx.save(model, path)
    (layer,) = open_onnx(path).children()
    assert np.array_equal(layer.weight.detach().numpy().T, integers * scales[:, None])


def test_weights_beside_the_file(tmp_path):
    """They are read; where they are missing or lie elsewhere the file is refused."""
    path = convolutional(tmp_path / "net.onnx")
    x, _ = digits(4)
    expected = runtime(path, x)[0]
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    with torch.no_grad():
        found = open_onnx(path)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (tmp_path / "w.bin").rename(tmp_path.parent / "w.bin")
    with pytest.raises(FormatError, match="not a readable ONNX file"):
        open_onnx(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../w.bin"
    onnx.save(model, path)
    with pytest.raises(FormatError, match="not a readable ONNX file"):
        open_onnx(path)


def test_damaged_files_end_in_one_error(tmp_path):
    """Cut anywhere, or with changed bytes: refused, or read as a network; never another error."""
    path = convolutional(tmp_path / "net.onnx")
    whole, rng = path.read_bytes(), np.random.default_rng(7)
    ends = [0, 1, 10, *rng.integers(0, len(whole), 40)]
    damaged = [whole[: int(end)] for end in ends]
    for _ in range(200):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            changed[at] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            open_onnx(path)
        except (FormatError, ConversionError, UnsupportedModuleError):
            refused += 1
    assert refused >= len(ends)


def test_other_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    with pytest.raises(FormatError, match="no such file"):
        open_onnx(path)
    path.write_text("not a network")
    with pytest.raises(FormatError, match="not a readable ONNX file"):
        open_onnx(path)
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE", 5)
    with pytest.raises(FormatError, match="larger than"):
        open_onnx(path)


def test_without_the_package(tmp_path, monkeypatch):
    path = convolutional(tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_graph, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError) as refusal:
        open_onnx(path)
    assert "pip install onnx" in refusal.value.remedy


@pytest.mark.parametrize(
    "file", ["resnet50_thin_two_class", "face_detection_front_128x128_barracuda"]
)
@pytest.mark.skipif(not MODELS.is_dir(), reason="trained networks of others are not there")
def test_trained_networks_compute_what_onnxruntime_does(file):
    path = MODELS / f"{file}.onnx"
    module = open_onnx(path)
    x = np.random.default_rng(8).uniform(0, 1, (1, *module.sample_shape)).astype(np.float32)
    moved = np.moveaxis(x, 1, -1)  # these take their channels last
    expected = ort.InferenceSession(str(path)).run(None, {"input:0": moved})
    with torch.no_grad():
        found = module(torch.from_numpy(x))
        three = module(torch.from_numpy(x.repeat(3, 0)))
    found, three = (v if isinstance(v, tuple) else (v,) for v in (found, three))
    assert len(found) == len(expected)
    for ours, theirs, thrice in zip(found, expected, three, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(thrice.numpy(), theirs.repeat(3, 0), rtol=1e-4, atol=1e-4)


def test_channels_come_first_whatever_the_file_takes(tmp_path):
    """As of Keras: the image's channels are moved to the front, and the outputs' back again."""
    rng = np.random.default_rng(3)
    nodes = [
        node("Transpose", "x", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first w1", "c1"),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2"),
        node("Transpose", "c2", "y", perm=[0, 2, 3, 1]),
    ]
    tensors = {"w1": weights(rng, 4, 2, 3, 3), "w2": weights(rng, 3, 4, 2, 2)}
    path = write(tmp_path / "net.onnx", nodes, ["N", 7, 6, 2], tensors)
    x = rng.uniform(0, 1, (40, 2, 7, 6)).astype(np.float32)
    conversion = spikeport.convert(path, calibrate=x, relu_percentile=100.0, steps=64)
    assert conversion.program.input.shape == (2, 7, 6)
    assert any("samples are given as (channels, height, width)" in n for n in conversion.notes)
    assert any(
        "outputs are (3, 4, 3), which the network arranges as (4, 3, 3)" in n
        for n in conversion.notes
    )
    (expected,) = runtime(path, np.moveaxis(x, 1, -1))
    recording = spikeport.run(conversion, x)
    (name,) = recording.outputs
    neuron = conversion.program.population(name).neuron
    assert isinstance(neuron, Readout)
    found = np.moveaxis(recording.outputs[name] * (neuron.scale / 64), 1, -1)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_start_up_does_not_import_onnx():
    """The package is read with the first file."""
    script = "import sys, spikeport.conversion; print('onnx' in sys.modules)"
    out, _ = python(script)
    assert out.strip() == "False"
