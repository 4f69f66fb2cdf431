"""Quantizers of ONNX: QuantizeLinear and DequantizeLinear pairs, and QONNX's `Quant`.

Quantizers of constants are evaluated: weights become the real numbers that they are. Quantizers of
data become quantized activations if their lowest value is 0, or if they are signed and behind a
ReLU. One that repeats another, with nothing but max pools and reshapes between, changes nothing. A
quantizer of the network's input is left to the program's own, one of its output is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolchain.conversion.frontend.activation_spec import SIGNED_QCFS
from toolchain.conversion.frontend.onnx_import.call import Call, Made, implements
from toolchain.conversion.frontend.onnx_import.graph import DTYPES
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import QuantizedActivation

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"
QUANT = [
    f"{d}.Quant" for d in ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
]
"""QONNX's operator in the domains that tools write; brevitas writes its own."""
_INTEGERS = (torch.uint8, torch.int8, torch.uint16)
"""Types that QuantizeLinear rounds to. int16 stands for narrower ones too, which torch lacks."""
_SELECTING = {
    DEQUANTIZE,
    "Relu",
    "MaxPool",
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Gather",
}
"""Operators whose results are values that they take, or 0."""
_ROUNDINGS = {"ROUND": torch.round, "FLOOR": torch.floor, "CEIL": torch.ceil}


class OnnxQuantizer(QuantizedActivation):
    """`scale * clip(round(z / scale), 0, levels)`; ties go to the even level, as in ONNX.

    An IF neuron, like QCFS, takes a tie up: `floor(z / scale + 1/2)`. The two differ only where z
    lies exactly in the middle of two levels, which real weights do not meet; a comparison in
    `CLIPPED` mode has no ties.

    Parameters
    ----------
    scale:
        Real value of one level: one number, or (1, C, 1, ...).
    rounds:
        Whether values are rounded; otherwise they are rounded down.
    lowest:
        Lowest level: below 0 only behind a ReLU, which never sends it.
    """

    scale: Tensor

    def __init__(
        self, scale: Tensor, levels: int, *, rounds: bool, kind: str, lowest: int = 0
    ) -> None:
        super().__init__(levels)
        self.kind, self.shift = kind, 0.5 if rounds else 0.0
        self._rounds, self._lowest = rounds, lowest
        self.register_buffer("scale", scale)
        self.register_buffer("threshold", scale * levels)

    def quantized(self, z: Tensor) -> Tensor:
        """See the class."""
        ratio = z / self.scale
        level = ratio.round() if self._rounds else ratio.floor()
        return level.clamp(self._lowest, self.levels) * self.scale

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"{self.levels} levels, {self.scale.numel()} scales"


@dataclass(frozen=True, eq=False)
class Grid:
    """What a quantizer computes: `(clip(round(x / scale) + zero, low, high) - zero) * scale`."""

    scale: Tensor
    zero: Tensor
    low: int
    high: int
    rounding: str = "ROUND"

    def integers(self, x: Tensor) -> Tensor:
        """Integers of real values, as real numbers."""
        rounded = _ROUNDINGS[self.rounding](x / self.scale)
        return torch.clamp(rounded + self.zero, self.low, self.high)

    def real(self, integers: Tensor) -> Tensor:
        """Real values of integers."""
        return (integers.to(self.scale.dtype) - self.zero) * self.scale


def _activation(call: Call, grid: Grid) -> Made:
    """The quantizer of data as an activation; None where it is left out."""
    name = call.node.name
    if call.at_input:
        ends = (float(((b - grid.zero) * grid.scale).max()) for b in (grid.low, grid.high))
        call.notes.append(
            f"{name}: the network rounds its input to {grid.high - grid.low} steps of "
            f"{' .. '.join(f'{end:.6g}' for end in ends)}; the program rounds to its own "
            "(input_range=, input_bits=)"
        )
        return None
    if call.at_output:
        call.notes.append(f"{name}: outputs are the values before this quantizer")
        return None
    if _repeats(call, grid):
        return None
    low, high = (grid.zero.new_tensor(b) - grid.zero for b in (grid.low, grid.high))
    rounds = grid.rounding == "ROUND"
    if (low == 0).all() and (high == high.max()).all() and grid.rounding != "CEIL":
        return OnnxQuantizer(grid.scale, int(high.max()), rounds=rounds, kind="onnx")
    if (grid.zero == 0).all() and rounds and grid.high > 0:
        return OnnxQuantizer(grid.scale, grid.high, rounds=True, kind=SIGNED_QCFS, lowest=grid.low)
    raise UnsupportedModuleError(
        f"{call.node.op}: a quantizer of values of both signs, which IF neurons cannot send",
        node=name,
        found=f"integers {grid.low} .. {grid.high}, zero point {grid.zero.flatten().tolist()[:4]}",
        allowed="from 0 on, behind ReLUs: quantize the activations only",
        remedy="export the network without quantizers, and convert it with relu_percentile=99.9",
    )


def _repeats(call: Call, grid: Grid) -> bool:
    """Whether the values have been through the same quantizer already."""
    before = call.producer
    while before is not None and before.node.op in _SELECTING:
        before = before.producer
    if before is None or grid.scale.numel() > 1:
        return False
    nodes = (call.node, before.node)
    return (
        len({node.op for node in nodes}) == 1
        and nodes[0].attributes == nodes[1].attributes
        and _equal(call, before)
    )


def _along(value: Tensor, axis: int, axes: int) -> Tensor:
    """One value, or one per index of `axis`, in a shape for tensors of `axes` axes."""
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape([-1 if i == axis % axes else 1 for i in range(axes)])


def _linear_grid(call: Call, limits: torch.iinfo) -> Grid:
    if call.attribute("block_size", 0):
        raise call.refused("by blocks", call.attribute("block_size"), allowed="0")
    scale, zero = call.constant(1), call.optional(2)
    zero = torch.zeros_like(scale) if zero is None else zero.to(scale.dtype)
    axis, axes = call.attribute("axis", 1), call.x.ndim
    return Grid(_along(scale, axis, axes), _along(zero, axis, axes), limits.min, limits.max)


@implements(QUANTIZE)
def _quantize_linear(call: Call) -> Made:
    zero = call.optional(2)
    dtype = DTYPES.get(call.attribute("output_dtype", 0), torch.uint8)
    dtype = dtype if zero is None else zero.dtype
    if dtype not in _INTEGERS or call.attribute("output_dtype", 0) not in (0, *DTYPES):
        raise call.refused("to these numbers", dtype, allowed=", ".join(map(str, _INTEGERS)))
    grid = _linear_grid(call, torch.iinfo(dtype))
    if call.data[0]:
        return _activation(call, grid)
    return lambda x, *_: grid.integers(x).to(dtype)


@implements(DEQUANTIZE)
def _dequantize_linear(call: Call) -> Made:
    """Data come from the quantizer before as real values already."""
    if not call.data[0]:
        grid = _linear_grid(call, torch.iinfo(torch.int8))  # limits have no part in it
        return lambda x, *_: grid.real(x)
    before = call.producer
    same = before is not None and before.node.op == QUANTIZE
    if before is None or not same or not _equal(call, before):
        raise call.refused(
            "integers that no QuantizeLinear of the same scale and zero point made",
            before and before.node.name,
        )
    return None


def _equal(call: Call, other: Call) -> bool:
    """Whether scale, zero point and what else follows the first input are equal."""
    if len(call.inputs) != len(other.inputs):
        return False
    pairs = [(call.optional(i), other.optional(i)) for i in range(1, len(call.inputs))]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@implements(*QUANT)
def _quant(call: Call) -> Made:
    scale, zero, bits = (call.constant(i) for i in (1, 2, 3))
    rounding = str(call.attribute("rounding_mode", "ROUND")).upper()
    if bits.numel() != 1 or rounding not in _ROUNDINGS:
        raise call.refused(
            "of this kind", f"{bits.tolist()} bits, {rounding}", allowed=", ".join(_ROUNDINGS)
        )
    width, narrow = int(bits.item()), int(call.attribute("narrow", 0))
    if call.attribute("signed", 1):
        low, high = -(1 << (width - 1)) + narrow, (1 << (width - 1)) - 1
    else:
        low, high = 0, (1 << width) - 1 - narrow
    scale, zero = (v.reshape(()) if v.numel() == 1 else v for v in (scale, zero))
    grid = Grid(scale, zero, low, high, rounding)
    if call.data[0]:
        return _activation(call, grid)
    return lambda x, *_: grid.real(grid.integers(x))


def check_reads(call: Call) -> None:
    """Raise UnsupportedModuleError if an operation computes with the integers of a quantizer."""
    before: Any = call.producer
    if before is not None and before.node.op == QUANTIZE and call.node.op != DEQUANTIZE:
        raise call.refused(
            "computes with the integers of a quantizer",
            before.node.name,
            allowed=DEQUANTIZE,
            remedy="export the network with pairs of QuantizeLinear and DequantizeLinear (QDQ)",
        )
