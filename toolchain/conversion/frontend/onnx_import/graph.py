"""Reader of ONNX files: nodes with plain attributes, and tensors.

Nothing of a file is executed. The package `onnx` is imported only when a file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.frontend.several_inputs import note
from toolchain.errors import FormatError, MissingDependencyError, UnsupportedModuleError

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 7
"""Oldest version of the standard operators: from 7 on they broadcast as NumPy does."""
LARGEST_FILE = (2 << 30) - 1
"""Largest file in bytes: protobuf reads no longer message. Weights beside it may be larger."""
STANDARD = ("", "ai.onnx")
"""Names of the standard domain of operators."""
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
"""torch's types by the numbers of `TensorProto.DataType`."""
DAMAGED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""Exceptions of `onnx` and NumPy for damaged tensors and attributes."""


@dataclass(frozen=True)
class OnnxNode:
    """One operation.

    Attributes
    ----------
    name:
        Name in the file with `_` for each run of other characters than letters and digits, or the
        operator and its position if the file gives none; not unique. "/layer1/layer1.0/Conv", as
        torch exports it, is `layer1_0_Conv`.
    op:
        Operator, such as "Conv"; those of other domains as "DOMAIN.OPERATOR".
    inputs, outputs:
        Names of values; "" for an optional input that is left out, or an output nobody reads.
    opset:
        Version of the operator's domain.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """The operations that the outputs need, in the order of the file.

    Attributes
    ----------
    constants:
        Initializers by name.
    input_shape:
        Shape with the batch axis; None for each size that the file leaves open, or in place of
        the whole if it gives no shape.
    input_type:
        Type of the input's values.
    note:
        How several inputs of the file are one here; empty otherwise.
    """

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, Tensor]
    input: str
    input_shape: tuple[int | None, ...] | None
    input_type: torch.dtype
    outputs: tuple[str, ...]
    note: str = ""


def read_graph(path: Path) -> OnnxGraph:
    """The graph in an ONNX file; weights in files beside it are read too.

    Raises
    ------
    MissingDependencyError
        If the package `onnx` is not installed.
    FormatError
        If the file is missing, too large, damaged or no ONNX file, or its weights are.
    UnsupportedModuleError
        If the operators are older than `OLDEST_OPSET`, or the network takes several inputs
        that cannot be one.
    """
    model = _read(path)
    opsets = {entry.domain: int(entry.version) for entry in model.opset_import}
    opset = max(opsets.get(domain, 0) for domain in STANDARD)
    if opset < OLDEST_OPSET:
        raise UnsupportedModuleError(
            "the operators are of an old version",
            node=str(path),
            found=f"opset {opset}",
            allowed=f"opset {OLDEST_OPSET} or later",
            remedy="export it again, or use onnx.version_converter.convert_version",
        )
    try:
        return _graph(model.graph, opsets, path)
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise FormatError("no such file", node=str(path))
    if path.stat().st_size > LARGEST_FILE:
        raise FormatError(
            "larger than an ONNX file can be",
            node=str(path),
            found=f"{path.stat().st_size:,} bytes",
            allowed=f"{LARGEST_FILE:,} bytes, with large weights in files beside it",
        )
    if find_spec("onnx") is None:
        raise MissingDependencyError(
            "is not installed",
            node="onnx",
            remedy="pip install onnx, or pip install 'spikeport[onnx]'",
        )
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_model
    from onnx.inliner import inline_local_functions

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        # The operators' versions are the last field that every model has.
        if not model.opset_import or not model.graph.node:
            raise ValueError("no operations, or no version of its operators")
        load_external_data_for_model(model, str(path.parent))
        return inline_local_functions(model) if model.functions else model
    except (*DAMAGED, DecodeError, onnx.checker.ValidationError, MemoryError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> FormatError:
    first, *_ = str(error).splitlines() or [""]
    return FormatError(
        "not a readable ONNX file (truncated, damaged, or another format)",
        node=str(path),
        found=f"{type(error).__name__}: {first}",
        remedy="export it again; weights in files of their own belong beside it",
    )


def _graph(graph: onnx.GraphProto, opsets: dict[str, int], path: Path) -> OnnxGraph:
    if graph.sparse_initializer:
        raise UnsupportedModuleError("sparse weights are not read", node=str(path))
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    # Files before IR version 4 list the initializers among the inputs.
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise UnsupportedModuleError("the network takes no input", node=str(path))
    outputs = tuple(value.name for value in graph.output)
    _check_text(*(value.name for value in inputs), *outputs)
    read = [_node(n, i, opsets) for i, n in enumerate(graph.node)]
    shapes = [_shape(value) for value in inputs]
    kind = DTYPES.get(inputs[0].type.tensor_type.elem_type, torch.float32)
    if len(inputs) == 1:
        nodes = _needed(read, outputs)
        return OnnxGraph(nodes, constants, inputs[0].name, shapes[0], kind, outputs)
    names = tuple(value.name for value in inputs)
    channels = [shape[1] if shape is not None and len(shape) > 1 else None for shape in shapes]
    rest = {None if shape is None else (shape[0], *shape[2:]) for shape in shapes}
    sizes = [c for c in channels if c is not None]
    if len(sizes) < len(names) or len(rest) > 1 or shapes[0] is None:
        raise UnsupportedModuleError(
            "the network takes several inputs",
            node=str(path),
            found=", ".join(f"{n} {s}" for n, s in zip(names, shapes, strict=True)),
            allowed="one tensor, or images of one size and known channels, which become one input",
        )
    name = ", ".join(names)
    split = OnnxNode("inputs", "Split", (name,), names, {"axis": 1, "split": sizes}, OLDEST_OPSET)
    nodes = _needed([split, *read], outputs)
    shape = (shapes[0][0], sum(sizes), *shapes[0][2:])
    return OnnxGraph(nodes, constants, name, shape, kind, outputs, note(names, sizes))


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)


def _node(node: onnx.NodeProto, index: int, opsets: dict[str, int]) -> OnnxNode:
    _check_text(node.op_type, node.name, node.domain, *node.input, *node.output)
    op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
    # torch names a node "/layer1/layer1.0/conv1/Conv", with the path of each module in full.
    parts = node.name.split("/")
    path = [a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(f"{a}.")]
    name = re.sub(r"\W+", "_", "/".join(path)).strip("_") or f"{node.op_type}_{index}"
    version = max(opsets.get(domain, 0) for domain in (node.domain, *STANDARD))
    attributes = {a.name: _attribute(a) for a in node.attribute}
    return OnnxNode(name, op, tuple(node.input), tuple(node.output), attributes, version)


def _check_text(*names: object) -> None:
    """Raise ValueError for names that are no text, which protobuf returns as bytes."""
    broken = [name for name in names if not isinstance(name, str)]
    if broken:
        raise ValueError(f"a name is not text: {broken[0]!r}")


def _attribute(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a number, text, tensor or list; a graph stays what it is."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _tensor(tensor: onnx.TensorProto) -> Tensor:
    """A tensor of the file in its own precision; types that torch lacks in the next wider one."""
    from onnx import numpy_helper

    array = np.array(numpy_helper.to_array(tensor))
    dtype = DTYPES.get(tensor.data_type)
    if dtype is None or dtype is torch.bfloat16:
        is_float = array.dtype.kind == "f" or "float" in array.dtype.name
        array = array.astype(np.float32 if is_float else np.int16)
    made = torch.from_numpy(array)
    return made.bfloat16() if dtype is torch.bfloat16 else made


def _needed(nodes: Iterable[OnnxNode], outputs: Sequence[str]) -> tuple[OnnxNode, ...]:
    """The nodes that `outputs` need, with the names of outputs that nobody reads left empty."""
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        read = tuple(name if name in wanted else "" for name in node.outputs)
        if any(read):
            wanted.update(node.inputs)
            kept.append(
                OnnxNode(node.name, node.op, node.inputs, read, node.attributes, node.opset)
            )
    return tuple(reversed(kept))
