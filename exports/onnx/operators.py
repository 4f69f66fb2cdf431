"""ONNX nodes of the synapses, and a list of nodes that grows.

Sums are float32 convolutions and products, which hold integers below 2^24 exactly in any order of
addition; `summed` proves that they stay below. Everything else is int32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Sliding, WindowSynapse

BATCH = "N"
QONNX = "qonnx.custom_op.general"
"""Domain of the operators that QONNX adds to ONNX."""
EXACT = 1 << 24
"""Integers up to here are exact in float32."""


class Nodes:
    """Nodes and constants of a graph; each call adds a node and returns the name of its result.

    Attributes
    ----------
    qonnx:
        Whether all values are float32, and those of few bits are marked by QONNX's `Quant`.
    """

    def __init__(self, *, qonnx: bool = False) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.qonnx = qonnx

    @property
    def samples(self) -> str | int:
        """Size of the first axis: any, or 1, since tools for FPGAs want all sizes known."""
        return 1 if self.qonnx else BATCH

    @property
    def kind(self) -> int:
        """ONNX's type of integers."""
        return TensorProto.FLOAT if self.qonnx else TensorProto.INT32

    def constant(self, name: str, values: Any, kind: type | None = None) -> str:
        """A constant array, by default of the type of integers."""
        kind = kind or (np.float32 if self.qonnx else np.int32)
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        """Constant integers, float32; with `qonnx` of as many bits as they need, at least two."""
        found = self.constant(name, values, np.float32)
        if not self.qonnx:
            return found
        ends = (int(values.max()), -1 - int(values.min()))
        bits = 1 + max(1, *(max(end, 0).bit_length() for end in ends))
        return self.quantized(f"{name}/quantized", found, 1.0, bits)

    def quantized(
        self, result: str, value: str, scale: Any, bits: int, *, signed: bool = True
    ) -> str:
        """`scale` times the integer below `value / scale`, within its bits: a `Quant` node."""
        given = [
            value,
            *(
                self.constant(f"{result}/{k}", v, np.float32)
                for k, v in (("scale", scale), ("zero", 0.0), ("bits", float(bits)))
            ),
        ]
        how = {"signed": int(signed), "narrow": 0, "rounding_mode": "FLOOR"}
        return self.add("Quant", result, *given, domain=QONNX, **how)

    def add(self, operator: str, result: str, *inputs: str, **attributes: Any) -> str:
        """A node with one result."""
        self.nodes.append(helper.make_node(operator, [*inputs], [result], **attributes))
        return result

    def cast(self, value: str, result: str, kind: int = TensorProto.INT32) -> str:
        """`value` as integers of 32 bits, or another kind; with `qonnx` it stays."""
        if self.qonnx:
            return value
        return self.add("Cast", result, value, to=kind)


def summed(
    nodes: Nodes,
    program: IntProgram,
    population: Population,
    spikes: Mapping[str, str],
    reach: Callable[[str], IntRange],
) -> str:
    """int32 (N, ...) current of all synapses of a population.

    Parameters
    ----------
    spikes, reach:
        float32 spikes, and their range, by source.

    Raises
    ------
    TargetError
        If a partial sum may not be exact in float32.
    """
    total = ""
    for number, synapse in enumerate(population.synapses):
        assert not isinstance(synapse, WindowSynapse)
        bound = largest_sum(synapse, reach(synapse.source)) >> synapse.weight_exponent
        if bound > EXACT:
            raise TargetError(
                "sums of this layer may pass 24 bits, which float32 does not hold exactly",
                node=population.name,
                found=f"up to {bound}",
                allowed=EXACT,
                remedy="use fewer weight bits or input bits",
            )
        name, source = f"{population.name}/{number}", program.source_shape(synapse.source)
        part = _current(nodes, synapse, name, spikes[synapse.source], source)
        total = nodes.add("Add", f"{name}/total", total, part) if total else part
    return total


def _current(
    nodes: Nodes,
    synapse: ConvSynapse | DenseSynapse,
    name: str,
    spikes: str,
    shape: tuple[int, ...],
) -> str:
    """int32 (N, ...) current of float32 spikes (N, ...) of a source with this shape."""
    if isinstance(synapse, DenseSynapse):
        weight = nodes.weight(f"{name}/weight", synapse.weight.T)
        flat = nodes.add("Flatten", f"{name}/flat", spikes)
        total = nodes.add("MatMul", f"{name}/sum", flat, weight)
    else:
        weight = nodes.weight(f"{name}/weight", synapse.weight)
        plane = _laid_out(nodes, synapse, name, spikes, shape)
        total = nodes.add(
            "Conv",
            f"{name}/sum",
            plane,
            weight,
            strides=synapse.stride,
            dilations=synapse.dilation,
            group=synapse.groups,
        )
    whole = nodes.cast(total, f"{name}/current")
    if not synapse.weight_exponent:
        return whole
    factor = nodes.constant(f"{name}/factor", 1 << synapse.weight_exponent)
    return nodes.add("Mul", f"{name}/shifted", whole, factor)


def _laid_out(
    nodes: Nodes, synapse: Sliding, name: str, values: str, shape: tuple[int, ...]
) -> str:
    """The plane that a kernel sees, float32 (N, C, H', W'): zeros between and around the values."""
    channels, height, width = shape
    up, begin, end = synapse.upsample, synapse.padding, synapse.end
    if up != (1, 1):
        apart = nodes.constant(f"{name}/apart", (-1, channels, height, 1, width, 1), np.int64)
        values = nodes.add("Reshape", f"{name}/single", values, apart)
        gaps = (0,) * 9 + (up[0] - 1, 0, up[1] - 1)
        gaps_name = nodes.constant(f"{name}/gaps", gaps, np.int64)
        values = nodes.add("Pad", f"{name}/spread", values, gaps_name)
        joined = (-1, channels, height * up[0], width * up[1])
        joined_name = nodes.constant(f"{name}/joined", joined, np.int64)
        values = nodes.add("Reshape", f"{name}/upsampled", values, joined_name)
        end = (end[0] - up[0] + 1, end[1] - up[1] + 1)
    if not any((*begin, *end)):
        return values
    pads = nodes.constant(f"{name}/pads", (0, 0, *begin, 0, 0, *end), np.int64)
    return nodes.add("Pad", f"{name}/plane", values, pads)


def largest(
    nodes: Nodes, synapse: WindowSynapse, name: str, counts: str, shape: tuple[int, ...]
) -> str:
    """int32 (N, C, H', W'): largest of each window of counts, float32, which are not negative."""
    plane = _laid_out(nodes, synapse, name, counts, shape)
    how = {"strides": synapse.stride, "dilations": synapse.dilation}
    found = nodes.add("MaxPool", f"{name}/largest", plane, kernel_shape=synapse.kernel, **how)
    return nodes.cast(found, f"{name}/maximum")


def per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One integer per channel, as an array that broadcasts against (N, *shape)."""
    return values.reshape(1, -1, *([1] * (len(shape) - 1)))
