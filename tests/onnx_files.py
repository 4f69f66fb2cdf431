"""ONNX files for tests, and what onnxruntime computes from them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from toolchain.conversion.frontend.onnx_import.module import OnnxModule, open_onnx

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


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 8, 8) in 0 .. 1 and their labels."""
    x, y = load_digits(return_X_y=True)
    return (x[:count] / 16).reshape(-1, 1, 8, 8).astype(np.float32), y[:count]


@cache
def trained() -> dict[str, np.ndarray]:
    """Convolutions drawn at random, and a dense layer fitted to digits behind them."""
    rng = np.random.default_rng(1)
    made = {
        "w1": weights(rng, 8, 1, 3, 3),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": weights(rng, 32, 8, 3, 3),
        "s": rng.uniform(0.5, 1.5, 32).astype(np.float32),
        "b": rng.normal(0, 0.1, 32).astype(np.float32),
        "m": rng.normal(0, 0.1, 32).astype(np.float32),
        "v": rng.uniform(0.5, 1.5, 32).astype(np.float32),
    }
    w1, b1, w2, s, b, m, v = (torch.from_numpy(value) for value in made.values())
    x, y = digits(1000)
    h = F.max_pool2d(F.relu(F.conv2d(torch.from_numpy(x), w1, b1, padding=1)), 2)
    h = F.relu(F.batch_norm(F.conv2d(h, w2, padding=1), m, v, s, b))
    rows = F.pad(F.avg_pool2d(h, 2).flatten(1), (0, 1), value=1.0).double()
    square = rows.T @ rows + 0.1 * torch.eye(len(rows[0]))
    solved = torch.linalg.solve(square, rows.T @ F.one_hot(torch.from_numpy(y)).double()).float()
    return {**made, "w3": solved[:-1].T.numpy(), "b3": solved[-1].numpy()}


def convolutional(path: Path, batch: str | int = "N") -> Path:
    """A trained network as exporters write it, with a reshape by computed sizes."""
    nodes = [
        node("Conv", "x w1 b1", "c1", name="/features/conv1/Conv", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", name="/features/relu1/Relu"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2", "c2", name="/features/features.3/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 s b m v", "n2"),
        node("Relu", "n2", "r2", name="/features.relu1/Relu"),
        node("AveragePool", "r2", "g", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "g", "sizes"),
        node("Gather", "sizes zero", "rows", axis=0),
        node("Unsqueeze", "rows axis", "rows1"),
        node("Concat", "rows1 rest", "wanted", axis=0),
        node("Reshape", "g wanted", "f"),
        node("Gemm", "f w3 b3", name="fc", transB=1),
    ]
    sizes = {"zero": np.int64(0), "axis": i64(0), "rest": i64(-1)}
    return write(path, nodes, [batch, 1, 8, 8], {**trained(), **sizes})
