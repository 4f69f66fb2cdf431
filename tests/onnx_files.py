"""ONNX files for tests, and what onnxruntime computes from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolchain.conversion.frontend.onnx_import.module import OnnxModule, open_onnx

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
ort.set_default_logger_severity(3)

QONNX = "qonnx.custom_op.general"
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def node(op, inputs, outputs="y", domain="", name=None, **attributes):
    return onnx.helper.make_node(
        op, inputs.split(), outputs.split(), name=name, domain=domain, **attributes
    )


def write(path: Path, nodes, shape, constants=None, opset=13, outputs=("y",), kind=1) -> Path:
    """A file of these nodes, whose input is `x` of this shape, with the batch axis."""
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(QONNX, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, path)
    return path


def runtime(path: Path, x: np.ndarray) -> list[np.ndarray]:
    """The outputs by onnxruntime."""
    session = ort.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})


def same_as_runtime(path: Path, x: np.ndarray, tolerance: float = 1e-5) -> OnnxModule:
    """The module of a file, checked in float32 and in float64 against onnxruntime."""
    module = open_onnx(path, x.shape[1:])
    expected = runtime(path, x)
    for kind in (torch.float32, torch.float64):
        with torch.no_grad():
            found = module.to(kind)(torch.from_numpy(x).to(kind))
        found = found if isinstance(found, tuple) else (found,)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert tuple(ours.shape) == theirs.shape
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)
    return module.float()
