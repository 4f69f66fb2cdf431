"""The module of an ONNX graph against onnxruntime, where that is installed.

A graph that is read wrongly computes something else, and nothing after this would show it: what
is checked later is held against the module itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.frontend.user_module import output_list, outputs
from toolchain.errors import ConversionError
from toolchain.learning.activations import ActivationMode

if TYPE_CHECKING:
    from toolchain.conversion.frontend.onnx_import.module import OnnxModule

SAMPLES = 8
"""Samples that both compute."""
MARGIN = 32.0
"""Allowed difference in units of the rounding error that is expected: room for another order of
sums, and far below what a wrong operator makes."""
STEPPED = {"QuantizeLinear", "Round", "Floor", "Ceil", "Sign"}
"""Operators, besides `Quant`, in which a rounding error may become a whole level."""


def compared(module: OnnxModule, file: Path, samples: Tensor) -> str:
    """Compare outputs for normalised samples, float64 (n, ...), at most `SAMPLES`; a note on it.

    The expected rounding error, in units of the largest output, is the machine epsilon of the
    file's type times the square root of the number of operations (rounding errors are of either
    sign, so that they add up as a random walk does: Higham and Mary, 2019), or the difference
    between the module in float32 and in float64 where that is larger. Where the graph rounds to
    levels, a rounding error may move a neuron by a level; then most samples must agree, not all.

    Raises
    ------
    ConversionError
        If the outputs differ by more than `MARGIN` times that.
    """
    if find_spec("onnxruntime") is None:
        return (
            f"{file.name} was not compared with onnxruntime, which is not installed: "
            "pip install 'spikeport[onnxruntime]'"
        )
    samples = samples[:SAMPLES].to(module.source.input_type).double()  # as onnxruntime takes them
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    failures: list[type[Exception]] = [RuntimeError, ValueError]
    kinds = [kind for kind in vars(states).values() if isinstance(kind, type)]
    failures += [kind for kind in kinds if issubclass(kind, Exception)]
    try:
        theirs = _by_runtime(module, file, samples)
    except tuple(failures) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return f"{file.name} was not compared: onnxruntime cannot run it ({reason[:200]})"
    if not all(np.isfinite(values).all() for values in theirs):
        return f"{file.name} was not compared: onnxruntime's outputs are not finite"
    worst, rounding = _differences(module, samples, theirs)
    depth, kind = len(module.source.nodes), module.source.input_type
    allowed = MARGIN * max(rounding, sqrt(depth) * torch.finfo(kind).eps)
    rounds = any(n.op in STEPPED or n.op.endswith(".Quant") for n in module.source.nodes)
    if not (np.median(worst) if rounds else worst.max()) <= allowed:
        raise ConversionError(
            "the graph is not read as onnxruntime computes it",
            node=file.name,
            found=f"outputs differ by {worst.max():.2g} of the largest output",
            allowed=f"{allowed:.2g}, for the rounding of {depth} operations",
            remedy="please report it with the file; until then, give the network as a module",
        )
    return (
        f"{file.name} was compared with onnxruntime on {len(samples)} samples: outputs differ by "
        f"at most {worst.max():.1g} of the largest output"
    )


def _differences(
    module: OnnxModule, samples: Tensor, theirs: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Largest difference of each sample (n,), and the module's own between float32 and float64.

    Both are in units of the largest output.
    """
    ours = outputs(module, samples, ActivationMode.QUANTIZED)
    worst, rounding = np.zeros(len(samples)), 0.0
    with torch.no_grad():
        narrow = output_list(module(samples.float())) if module.real is torch.float32 else ours
    for wide, short, other in zip(ours, narrow, theirs, strict=True):
        if tuple(wide.shape) != other.shape:
            return np.full(len(samples), np.inf), 0.0
        largest = float(np.abs(other).max()) or 1.0
        difference = np.abs(wide.numpy() - other).reshape(len(other), -1).max(axis=1)
        worst = np.maximum(worst, difference / largest)
        rounding = max(rounding, float((wide - short.double()).abs().max()) / largest)
    return worst, rounding


def _by_runtime(module: OnnxModule, file: Path, samples: Tensor) -> list[np.ndarray]:
    """Outputs of onnxruntime, without fused operations: float64 (n, ...) each."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = _without_quantizers(module, file) if module.left_out else str(file)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    source = module.source
    x = samples.permute(0, 2, 3, 1) if module.moves_channels else samples
    x = x.to(source.input_type).contiguous()
    size = (source.input_shape or (None,))[0] or len(x)
    # A file that was exported for a number of samples takes that many.
    rows = np.arange(-(-len(x) // size) * size) % len(x)
    parts = [
        session.run(list(module.results), {source.input: x[rows[i : i + size]].numpy()})
        for i in range(0, len(rows), size)
    ]
    whole = [np.concatenate(values)[: len(x)] for values in zip(*parts, strict=True)]
    return [values.astype(np.float64) for values in whole]


def _without_quantizers(module: OnnxModule, file: Path) -> bytes:
    """The file without the quantizers at its ends, which the module leaves out with a note."""
    import onnx

    model = onnx.load(str(file))
    graph, left_out = model.graph, module.left_out
    kept = [node for node in graph.node if not set(node.output) <= left_out.keys()]
    for node in kept:
        node.input[:] = [left_out.get(name, name) for name in node.input]
    ends = [onnx.helper.make_empty_tensor_value_info(name) for name in module.results]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:], graph.output[:]
    graph.node.extend(copies)
    graph.output.extend(ends)
    whole: bytes = model.SerializeToString()
    return whole
