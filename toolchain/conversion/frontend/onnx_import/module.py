"""A torch module that computes an ONNX graph, one submodule per node, named after it.

Constants are evaluated when the module is made: weights as they are after all arithmetic on them,
shapes for the sample shape given. What is left are torch's own layers and functions, which the
frontend traces as it traces any module: which of them have an exact integer counterpart is not
known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.onnx_import import elementwise, layers, quantizers, shapes
from toolchain.conversion.frontend.onnx_import.call import MAKERS, MOST_VALUES, Call, Function
from toolchain.conversion.frontend.onnx_import.graph import OnnxGraph, OnnxNode, read_graph
from toolchain.errors import ConversionError, SpikeportError, UnsupportedModuleError
from toolchain.program.names import new_name
from toolchain.user_code import told

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions of torch for operands that do not fit each other."""
_FAMILIES = (elementwise, layers, quantizers, shapes)
"""Modules that fill `MAKERS`."""
_ENDS = {
    quantizers.DEQUANTIZE,
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Transpose",
    "Cast",
}
"""Operators behind the last values that a program computes."""


@dataclass(frozen=True)
class _Step:
    """A submodule, and the names of the values that it reads, makes, and reads last."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frees: tuple[str, ...]


class _Operation(nn.Module):
    """A function of data, in order, and of constants in between."""

    def __init__(self, function: Function, call: Call) -> None:
        super().__init__()
        self._function = function
        self._order: list[Any] = []
        inputs = list(zip(call.inputs, call.data, strict=True))
        axes = max(value.ndim for value, data in inputs if data and value is not None)
        for index, (value, data) in enumerate(inputs):
            if data or value is None:
                self._order.append(None if data else (None,))
                continue
            number = elementwise.one_number(value, axes)
            if isinstance(number, Tensor):
                self.register_buffer(f"input_{index}", number)
                number = f"input_{index}"
            self._order.append((number,))

    def forward(self, *data: Any) -> Any:
        """The function of the data and the constants."""
        rest = iter(data)
        return self._function(
            *(next(rest) if kept is None else self._kept(*kept) for kept in self._order)
        )

    def _kept(self, value: Any) -> Any:
        return getattr(self, value) if isinstance(value, str) else value


class OnnxModule(nn.Module):
    """An ONNX graph as a module of one tensor (N, ...).

    Parameters
    ----------
    graph:
        What `read_graph` returned.
    input_shape:
        Shape of one sample, if the file leaves it open. If both say it they must agree.

    A network that begins by moving the channels of its images to the front, as those of Keras do,
    takes images (C, H, W) here, and not (H, W, C).

    Attributes
    ----------
    sample_shape:
        Shape of one sample.
    notes:
        What the user should know, one sentence each.
    source:
        The graph, without its constants.
    results:
        Names of the values in the file that the forward returns.
    left_out:
        Values of the quantizers at the ends, which are left out, and what is read in their place.
    moves_channels:
        Whether the file takes images (H, W, C).
    real:
        Type of the real numbers.

    Raises
    ------
    UnsupportedModuleError
        For operators that are not known, all of them in one error, forms of an operator that are
        not supported, and a sample shape that neither the file nor the caller gives.
    ConversionError
        If the graph's values do not fit each other.
    """

    def __init__(self, graph: OnnxGraph, input_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        _check_known(graph.nodes)
        self.moves_channels = _begins_with(graph, (0, 3, 1, 2))
        if self.moves_channels and input_shape is not None and len(input_shape) == 3:
            input_shape = (*input_shape[1:], input_shape[0])
        shape = _sample_shape(graph, input_shape)
        made = _Builder(self, graph, shape)
        made.build()
        self.notes = [graph.note, *made.notes] if graph.note else made.notes
        self.sample_shape = shape
        if self.moves_channels:
            self.sample_shape = (shape[-1], *shape[:-1])
            self.notes.append(
                f"{graph.input}: samples are given as (channels, height, width), "
                f"{self.sample_shape}; the file itself takes {shape}"
            )
        self._steps, self.results = made.steps()
        self.source = replace(graph, constants={})
        self.left_out, self.real = made.left_out, made.real
        self.eval()

    def forward(self, x: Any) -> Any:
        """One tensor, or a tuple of the outputs in the order of the file."""
        values = {self.source.input: x.permute(0, 2, 3, 1) if self.moves_channels else x}
        for step in self._steps:
            made = self.get_submodule(step.name)(*(values[name] for name in step.inputs))
            values.update(zip(step.outputs, _as_tuple(made), strict=True))
            for name in step.frees:
                del values[name]
        results = tuple(values[name] for name in self.results)
        return results if len(results) > 1 else results[0]


def open_onnx(path: Path, input_shape: tuple[int, ...] | None = None) -> OnnxModule:
    """The network in an ONNX file.

    Raises
    ------
    SpikeportError
        See `read_graph` and `OnnxModule`.
    """
    return OnnxModule(read_graph(path), input_shape)


class _Builder:
    """Makes the submodules of an `OnnxModule`, running each once on a sample of zeros."""

    def __init__(self, module: nn.Module, graph: OnnxGraph, sample_shape: tuple[int, ...]) -> None:
        self.notes: list[str] = []
        self.left_out: dict[str, str] = {}
        self._module, self._graph = module, graph
        floats = {t.dtype for t in graph.constants.values()} | {graph.input_type}
        self.real = torch.float64 if torch.float64 in floats else torch.float32
        self._taken = set(dir(module))
        self._values: dict[str, Tensor] = {}
        self._names: dict[str, str] = {graph.input: graph.input}
        self._producers: dict[str, Call] = {}
        self._made: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        self._readers: dict[str, list[OnnxNode]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        batch = (graph.input_shape or (None,))[0] or 1
        self._bind(graph.input, torch.zeros(()).expand(batch, *sample_shape))
        for name, value in graph.constants.items():
            self._bind(name, value)

    def build(self) -> None:
        """Make all nodes, in order."""
        for node in self._graph.nodes:
            try:
                with torch.no_grad():
                    self._make(node)
            except SpikeportError:
                raise
            except FAILURES as error:
                raise ConversionError(
                    f"{node.op} cannot be computed", node=node.name, found=told(error)
                ) from error
        constant = [name for name in self._graph.outputs if name not in self._names]
        if constant:
            raise ConversionError(
                "an output does not depend on the input", node=", ".join(constant)
            )

    def steps(self) -> tuple[list[_Step], tuple[str, ...]]:
        """What `OnnxModule.forward` does, and the names of the values it returns."""
        outputs = tuple(self._names[name] for name in self._graph.outputs)
        seen, steps = set(outputs), []
        for name, inputs, made in reversed(self._made):
            unread = tuple(dict.fromkeys(v for v in (*inputs, *made) if v not in seen))
            seen.update(inputs)
            steps.append(_Step(name, inputs, made, unread))
        return steps[::-1], outputs

    def _bind(self, name: str, value: Tensor) -> None:
        """Record a value; all real numbers have one type, since a module has one."""
        self._values[name] = value.to(self.real) if value.is_floating_point() else value

    def _make(self, node: OnnxNode) -> None:
        missing = [name for name in node.inputs if name and name not in self._values]
        if missing:
            raise ConversionError(
                "reads values that no node before it makes",
                node=node.name,
                found=", ".join(missing),
            )
        inputs = tuple(self._values.get(name) for name in node.inputs)
        data = tuple(name in self._names for name in node.inputs)
        first = node.inputs[0] if node.inputs else ""
        call = Call(
            node,
            inputs,
            data,
            self._producers.get(first),
            at_input=first in self._names and self._names[first] == self._graph.input,
            at_output=self._ends(node.outputs[0]),
            notes=self.notes,
        )
        quantizers.check_reads(call)
        made = MAKERS[node.op](call)
        is_data = any(data) and node.op not in shapes.SHAPE_OPS
        if made is None:
            self._bind(node.outputs[0], call.x)
            if is_data:
                self._names[node.outputs[0]] = self._names[first]
                if first in self.left_out or (
                    node.op in (quantizers.QUANTIZE, *quantizers.QUANT)
                    and (call.at_input or call.at_output)
                ):
                    self.left_out[node.outputs[0]] = self._names[first]
        elif not is_data:
            result = made(call.x) if isinstance(made, nn.Module) else made(*inputs)
            self._results(node, _as_tuple(result))
        else:
            self._add(call, made)
        self._producers[node.outputs[0]] = call

    def _add(self, call: Call, made: nn.Module | Function) -> None:
        """Make a step of `made`."""
        node = call.node
        sources = [name for name, is_data in zip(node.inputs, call.data, strict=True) if is_data]
        if isinstance(made, nn.Module):
            sources = sources[:1]
        step = made if isinstance(made, nn.Module) else _Operation(made, call)
        name = new_name(node.name, self._taken)
        self._module.add_module(name, step)
        results = _as_tuple(step(*(self._values[source] for source in sources)))
        # Only the shapes of data are needed from here on, and these take no memory.
        outputs = self._results(node, [r.new_zeros(()).expand(r.shape) for r in results])
        self._names.update({output: output for output in outputs if output})
        self._made.append((name, tuple(self._names[s] for s in sources), outputs))

    def _results(self, node: OnnxNode, results: Sequence[Tensor]) -> tuple[str, ...]:
        """Record the results of a node; returns their names."""
        if any(node.outputs[len(results) :]):
            raise UnsupportedModuleError(
                f"{node.op}: only the first result is computed",
                node=node.name,
                found=", ".join(node.outputs),
            )
        outputs = node.outputs[: len(results)]
        for name, value in zip(outputs, results, strict=True):
            if name:
                self._bind(name, value)
        return outputs

    def _ends(self, name: str) -> bool:
        """Whether a value only goes to the network's outputs, at most through `_ENDS`."""
        readers = self._readers.get(name, [])
        return (bool(readers) or name in self._graph.outputs) and all(
            reader.op in _ENDS and self._ends(reader.outputs[0]) for reader in readers
        )


def _as_tuple(results: Any) -> tuple[Any, ...]:
    """The results of a step: only operators with several return a tuple."""
    return results if isinstance(results, tuple) else (results,)


def _check_known(nodes: Iterable[OnnxNode]) -> None:
    unknown: dict[str, list[str]] = {}
    for node in nodes:
        if node.op not in MAKERS:
            unknown.setdefault(node.op, []).append(node.name)
    if unknown:
        remedy = "export the network with operators that are known"
        if any("Integer" in op or "QLinear" in op for op in unknown):
            remedy = "export it in the QDQ format: QuantizeLinear and DequantizeLinear"
        raise UnsupportedModuleError(
            "the graph holds operators that are not known",
            node=next(iter(unknown.values()))[0],
            found="\n".join(f"{op}: {', '.join(names)}" for op, names in unknown.items()),
            allowed=", ".join(sorted(MAKERS)),
            remedy=remedy,
        )


def _begins_with(graph: OnnxGraph, order: tuple[int, ...]) -> bool:
    """Whether all that the network does with its input is to put the axes into this order."""
    readers = [node for node in graph.nodes if graph.input in node.inputs]
    orders = {(node.op, tuple(node.attributes.get("perm", ()))) for node in readers}
    return orders == {("Transpose", order)} and graph.input not in graph.outputs


def _sample_shape(graph: OnnxGraph, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of a sample, from the file and from the caller."""
    known = None if graph.input_shape is None else graph.input_shape[1:]
    shape = given if known is None or None in known else tuple(s for s in known if s is not None)
    if shape is None:
        raise UnsupportedModuleError(
            "the file leaves the input shape open",
            node=graph.input,
            found=graph.input_shape,
            remedy="input_shape=(3, 32, 32), or calibrate=DATA",
        )
    agrees = known is None or (
        len(known) == len(shape) and all(k in (None, s) for k, s in zip(known, shape, strict=True))
    )
    if not agrees or min(shape, default=1) < 1 or prod(shape) > MOST_VALUES:
        raise UnsupportedModuleError(
            "the input shape is not that of the file",
            node=graph.input,
            found=shape,
            allowed=f"{known}, after the axis of samples",
        )
    return shape
