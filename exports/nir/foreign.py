"""Reader of NIR graphs of other tools as float programs; an unknown node is an error.

In NIR a neuron is set to `v_reset` after a spike. Many tools subtract the threshold instead and
write the same node (snnTorch's default, sinabs), so the graph does not determine the reset: over
several steps the user must state it. A `LIF` without decay (tau infinite, as snnTorch writes
`Leaky` with beta = 1) is an `IF`. A spike has the value 1 there and a threshold here, so currents
are divided by the thresholds. NIR fires above the threshold, here a neuron fires at it: it starts
one integer below 0, which is equivalent for integers.

Types that a file declares (input, output, sizes of planes) need not agree with its arrays: norse
writes one number for all neurons of a layer, nirtorch the axes of batch and time, and nir itself
ignores the groups of a convolution. The arrays decide, and a note names what was declared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exports.hdf5 import DAMAGED, opened
from exports.nir.layout import KEY
from toolchain.errors import FormatError, SpikeportError, TargetError, UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Input,
    Linear,
)
from toolchain.program.int_program import INPUT
from toolchain.program.names import new_name

if TYPE_CHECKING:
    import nir

ABOVE = -(2.0**-40)
"""Initial potential in thresholds: rounded down, it is -1 for any integer threshold."""
SHORT_STEP = 0.01
"""Longest time step in seconds that a resistance of 1 / dt stands for; below it is a gain."""
READOUT = "spikes"
"""Name of the layer that counts the spikes if the network ends in neurons."""
Shape = tuple[int, ...]


class Reset(str, Enum):
    """Reset of a neuron after a spike, in the tool that wrote a graph."""

    SUBTRACT = "subtract"
    ZERO = "zero"


def open_graph(path: Path, *, known: bool = False) -> nir.NIRGraph:
    """The graph in a file; `known` as in `exports.hdf5.opened`.

    Raises
    ------
    FormatError
        If the file is missing, no NIR file, or larger than a network needs.
    """
    with opened(path, known=known, also=_read_graph):
        pass
    try:
        return _read_graph(path)
    except Exception as error:
        raise FormatError(
            "not a readable NIR file",
            node=str(path),
            found=f"{type(error).__name__}: {error}",
        ) from error


def _read_graph(path: Path) -> nir.NIRGraph:
    import nir

    # nir gets an open file, since it would lock a named one.
    with path.open("rb") as file:
        try:
            return nir.read(file)
        except DAMAGED:
            file.seek(0)
            return nir.read(file, type_check=False)


def is_ours(path: Path) -> bool:
    """Whether this project wrote the graph; raises FormatError if there is no graph."""
    return KEY in open_graph(path).metadata


def read_foreign_nir(
    path: Path, steps: int, reset: Reset | None
) -> tuple[FloatProgram, tuple[str, ...]]:
    """A graph of another tool as a float program, for spiking networks of `steps` steps.

    Also returns notes on what is read otherwise than it is declared.

    Raises
    ------
    FormatError
        If the file is missing, no NIR file, or not one connected graph from one input to one
        output.
    TargetError
        If there are several steps and the reset is unknown, or not a subtraction.
    UnsupportedModuleError
        If a node has no counterpart. The error names it.
    """
    graph = open_graph(path)
    if steps > 1:
        _check_reset(path, graph, reset)
    try:
        reader = _Reader(path, graph, steps)
        return reader.program(), tuple(reader.notes)
    except SpikeportError:
        raise
    except DAMAGED as error:
        raise FormatError(
            "the graph does not describe a network",
            node=str(path),
            found=f"{type(error).__name__}: {error}",
        ) from error


def _check_reset(path: Path, graph: nir.NIRGraph, reset: Reset | None) -> None:
    import nir

    if reset is Reset.SUBTRACT or not any(
        isinstance(node, nir.IF | nir.LIF) for node in graph.nodes.values()
    ):
        return
    raise TargetError(
        "over several steps it matters how neurons are reset, and NIR's word is: to v_reset",
        node=str(path),
        found="not told" if reset is None else reset.value,
        allowed="reset by subtraction, or one step",
        remedy='nir_reset="subtract" if the tool that wrote it subtracts (snnTorch and sinabs do '
        "by default), or steps=1",
    )


class _Reader:
    """Converts a graph from its input on."""

    def __init__(self, path: Path, graph: nir.NIRGraph, steps: int) -> None:
        self._path, self._graph, self._steps = path, graph, steps
        self._nodes: list[FloatNode] = []
        self._shapes: dict[str, Shape] = {}
        self._names: dict[str, str] = {}
        """Names of the float nodes by those of the graph's nodes, which may already be used."""
        self._taken: set[str] = set()
        self.notes: list[str] = []
        self.resistance = self._resistance()

    def _resistance(self) -> float:
        """The resistance with which a step adds the current to the potential: 1, or 1 / dt."""
        found = [n.r for n in self._graph.nodes.values() if type(n).__name__ == "IF"]
        values = {float(r) for node in found for r in np.asarray(node).flat}
        if len(values) != 1 or not 1 / SHORT_STEP <= min(values) < np.inf:
            return 1.0
        (resistance,) = values
        self.notes.append(
            f"all IF neurons have the resistance {resistance:.6g}, read as 1 / dt: a step of "
            f"{1 / resistance:.6g} s adds the current to the potential (as SpikingJelly writes; "
            "its own neurons also fire at their threshold, those of NIR above it)"
        )
        return resistance

    def program(self) -> FloatProgram:
        """The program with all nodes in order, and a readout if the graph ends in neurons."""
        last = ""
        for name in self._ordered():
            node = self._graph.nodes[name]
            kind = type(node).__name__
            sources = [self._names[a] for a, b in self._graph.edges if b == name]
            if kind == "Input":
                self._names[name] = self.put(Input(INPUT, (), self._sample_shape(name)))
                continue
            source = self._joined(name, sources)
            self._compare(name, node, self._shapes[source])
            if kind == "Output":
                last = source
                continue
            handler = _HANDLERS.get(kind)
            if handler is None:
                raise UnsupportedModuleError(
                    "this NIR node has no counterpart here",
                    node=name,
                    found=kind,
                    allowed=", ".join((*_HANDLERS, "Input", "Output")),
                )
            made = handler(self, name, source, node)
            self._names[name] = source if made is None else self.put(made)
        if isinstance(self._node(last), Activation):
            channels = int(np.prod(self._shapes[last]))
            if len(self._shapes[last]) > 1:
                last = self.put(Flatten(f"{READOUT}.flatten", (last,)))
            self.put(Linear(READOUT, (last,), np.eye(channels), np.zeros(channels)))
        return FloatProgram(tuple(self._nodes))

    def _sample_shape(self, name: str) -> Shape:
        """The declared input, without axes before those that the first nodes take."""
        declared = tuple(int(s) for s in self._graph.nodes[name].output_type["output"])
        for source, target in self._graph.edges:
            if source != name:
                continue
            node = self._graph.nodes[target]
            wanted: Shape = ()
            if type(node).__name__ in ("Affine", "Linear"):
                wanted = (int(node.weight.shape[1]),)
            elif type(node).__name__ == "Conv2d":
                wanted = (int(node.weight.shape[1]) * int(node.groups), *declared[-2:])
            if wanted and declared[-len(wanted) :] == wanted != declared:
                self.notes.append(
                    f"{name}: declared as {declared}; {target} takes {wanted}, so that the axes "
                    "before are read as those of batch and time"
                )
                return wanted
        return declared

    def _compare(self, name: str, node: Any, shape: Shape) -> None:
        """Note an input that is declared otherwise than it arrives."""
        found = (node.input_type or {}).get("input")
        declared = None if found is None else tuple(int(s) for s in np.atleast_1d(found))
        arriving = shape
        if type(node).__name__ == "Conv2d" and declared is not None:
            # nir takes the channels from the weights, which have those of one group.
            declared, arriving = declared[-2:], shape[-2:]
        if declared not in (None, arriving):
            self.notes.append(f"{name}: declared for {declared}; {arriving} arrive, and are read")

    def shape(self, name: str) -> Shape:
        """Shape of a node's output."""
        return self._shapes[name]

    @property
    def steps(self) -> int:
        """Time steps that the graph is read for."""
        return self._steps

    def _node(self, name: str) -> FloatNode:
        return next(node for node in self._nodes if node.name == name)

    def put(self, node: FloatNode) -> str:
        """Add a node after its sources; returns its name, a new one if the name is already used."""
        name = new_name(node.name, self._taken)
        self._nodes.append(replace(node, name=name))
        self._shapes[name] = FloatProgram(tuple(self._nodes)).shapes()[name]
        return name

    def _joined(self, name: str, sources: list[str]) -> str:
        """The node whose value arrives: NIR adds the values of several edges."""
        if len(sources) == 1:
            return sources[0]
        return self.put(Add(f"{name}.add", tuple(sources)))

    def _ordered(self) -> list[str]:
        """Names of all nodes, each after its sources."""
        nodes, edges = self._graph.nodes, self._graph.edges
        ends = [type(node).__name__ for node in nodes.values()]
        if ends.count("Input") != 1 or ends.count("Output") != 1:
            raise FormatError(
                "needs one input and one output", node=str(self._path), found=", ".join(ends)
            )
        unknown = {name for edge in edges for name in edge} - set(nodes)
        if unknown:
            raise FormatError(
                "an edge names a node that is not there",
                node=str(self._path),
                found=", ".join(sorted(unknown)),
            )
        sorter = TopologicalSorter({name: [] for name in nodes})
        for source, target in edges:
            sorter.add(target, source)
        try:
            return list(sorter.static_order())
        except CycleError as error:
            cycle = error.args[1]
            raise UnsupportedModuleError(
                "the graph has a cycle; recurrent networks have no counterpart here",
                node=cycle[0],
                found=" -> ".join(cycle),
            ) from error


def _conv(reader: _Reader, name: str, source: str, node: Any) -> FloatNode:
    weight = np.asarray(node.weight, np.float64)
    stride, dilation = _pair(node.stride), _pair(node.dilation)
    pads = node.padding
    if isinstance(pads, str):
        pads = 0 if pads == "valid" else _same(name, pads, weight, stride, dilation)
    padding = _pair(pads)
    bias = np.asarray(node.bias, np.float64).reshape(-1)
    groups = int(node.groups)
    return Conv2d(name, (source,), weight, bias, stride, padding, dilation, groups)


def _same(
    name: str, word: str, weight: np.ndarray, stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Zeros on each side with which the output has as many rows and columns as the input."""
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if word != "same" or stride != (1, 1) or any(t % 2 for t in totals):
        raise UnsupportedModuleError(
            "this padding by name is not read",
            node=name,
            found=f"{word}, kernel {weight.shape[2:]}, stride {stride}",
            allowed='numbers, "valid", or "same" with odd kernels and stride 1',
        )
    return (totals[0] // 2, totals[1] // 2)


def _affine(reader: _Reader, name: str, source: str, node: Any) -> FloatNode:
    bias = getattr(node, "bias", None)
    weight = np.asarray(node.weight, np.float64)
    offset = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
    return Linear(name, (source,), weight, offset)


def _neuron(reader: _Reader, name: str, source: str, node: Any) -> FloatNode:
    if type(node).__name__ == "LIF" and (np.isfinite(node.tau).any() or np.any(node.v_leak)):
        raise UnsupportedModuleError(
            "neurons that leak have no counterpart here",
            node=name,
            found=f"tau {np.min(node.tau):.4g}",
            allowed="IF, or LIF with infinite tau",
        )
    if type(node).__name__ == "IF" and (np.asarray(node.r) != reader.resistance).any():
        raise UnsupportedModuleError(
            "a resistance other than 1 is not read",
            node=name,
            found=f"{np.min(node.r):.4g} .. {np.max(node.r):.4g}",
            allowed=f"1, or one 1 / dt for all neurons with dt up to {SHORT_STEP} s",
            remedy="multiply it into the weights",
        )
    if np.any(node.v_reset):
        raise UnsupportedModuleError(
            "a reset to other than 0 is not read", node=name, found=float(np.max(node.v_reset))
        )
    channels = reader.shape(source)[0]
    threshold = np.asarray(node.v_threshold, np.float64)
    threshold = np.broadcast_to(threshold.reshape(-1, 1), (max(threshold.size, channels), 1))
    by_channel = threshold.reshape(channels, -1)
    if (by_channel != by_channel[:, :1]).any():
        raise UnsupportedModuleError("thresholds differ within a channel", node=name)
    if (by_channel <= 0).any():
        raise UnsupportedModuleError("a threshold must be positive", node=name)
    scaled = BatchNorm(f"{name}.unit", (source,), 1.0 / by_channel[:, 0], np.zeros(channels))
    unit = reader.put(scaled)
    return Activation(name, (unit,), np.ones(1), reader.steps, ABOVE, "NIR")


def _flatten(reader: _Reader, name: str, source: str, node: Any) -> FloatNode | None:
    return Flatten(name, (source,)) if len(reader.shape(source)) > 1 else None


def _average(reader: _Reader, name: str, source: str, node: Any) -> FloatNode:
    kernel, stride, padding = (_pair(v) for v in (node.kernel_size, node.stride, node.padding))
    return AvgPool2d(name, (source,), kernel, stride, padding)


def _sum(reader: _Reader, name: str, source: str, node: Any) -> FloatNode:
    mean = reader.put(replace(_average(reader, name, source, node), name=f"{name}.mean"))
    area = float(np.prod(_pair(node.kernel_size)))
    channels = reader.shape(source)[0]
    return BatchNorm(name, (mean,), np.full(channels, area), np.zeros(channels))


def _scale(reader: _Reader, name: str, source: str, node: Any) -> FloatNode | None:
    channels = reader.shape(source)[0]
    scale = np.asarray(node.scale, np.float64).reshape(-1)
    rows = np.broadcast_to(scale, (channels,)) if scale.size == 1 else scale.reshape(channels, -1)
    if rows.ndim == 2 and (rows != rows[:, :1]).any():
        raise UnsupportedModuleError("scales differ within a channel", node=name)
    gain = rows.reshape(channels, -1)[:, 0]
    return None if (gain == 1).all() else BatchNorm(name, (source,), gain, np.zeros(channels))


def _pair(value: Any) -> tuple[int, int]:
    values = np.asarray(value).reshape(-1)
    return (int(values[0]), int(values[-1]))


_HANDLERS: dict[str, Callable[[_Reader, str, str, Any], FloatNode | None]] = {
    "Conv2d": _conv,
    "Affine": _affine,
    "Linear": _affine,
    "IF": _neuron,
    "LIF": _neuron,
    "Flatten": _flatten,
    "AvgPool2d": _average,
    "SumPool2d": _sum,
    "Scale": _scale,
}
