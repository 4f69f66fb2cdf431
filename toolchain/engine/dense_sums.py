"""Exact synaptic sums of whole planes, as convolutions and matrix products.

- int8: oneDNN's convolution or product of unsigned bytes with signed 8-bit weights. It sums in
  int32 and returns float32, which is exact below 2^24. Without VNNI instructions such kernels may
  saturate in 16 bits, so they are used only if the CPU has VNNI.
- float32 and float64, with the same bounds as in the reference simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.spike_encoding import INT8, coded_offset, plane_of
from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse
from toolchain.simulator.currents import WITHOUT_NNPACK, exact_dtype
from toolchain.torch_private import INT8_SUMS, onednn, processor_has

Multiply = Callable[[Tensor, int], Tensor]
"""Sums of encoded spikes (m, H, W, C) with the given offset."""
UNROLLED = 2
"""Largest size of a convolution written as a matrix, relative to its weights.

Planes are then so small that a kernel covers mostly padding.
"""


class Arithmetic(Enum):
    """Arithmetic in which a synapse is summed."""

    INT8 = "int8"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


@cache
def has_int8() -> bool:
    """Whether oneDNN's int8 sums are available and exact: the CPU has VNNI."""
    return processor_has("vnni") and all(hasattr(onednn, name) for name in INT8_SUMS)


def choose_arithmetic(name: str, synapse: Synapse, spikes: IntRange) -> Arithmetic:
    """The fastest exact arithmetic for spikes in this range.

    Raises
    ------
    ValueRangeError
        If float64 is not exact either.
    """
    if exact_dtype(name, synapse, spikes) is torch.float64:
        return Arithmetic.FLOAT64
    if (
        isinstance(synapse, ConvSynapse | DenseSynapse)
        and has_int8()
        and coded_offset(spikes) is not None
        and INT8.contains(int(synapse.weight.min()), int(synapse.weight.max()))
    ):
        return Arithmetic.INT8
    return Arithmetic.FLOAT32


@cache
def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bytes (AMX)."""
    return processor_has("amx_tile")


def plane_time(
    synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...], arithmetic: Arithmetic
) -> float:
    """Estimated time of the products of one plane in one thread, in nanoseconds.

    The factors per product are estimates for oneDNN on CPUs with VNNI, and AMX counts as twice as
    fast. `benchmarks/simulator_speed.py` measures the whole engine.
    """
    if isinstance(synapse, ConvSynapse) and pays_unrolled(synapse, source):
        products = prod(source) * prod(synapse.output_shape(source))
    else:
        products = synapse.weight.size * prod(synapse.output_shape(source)[1:])
    if arithmetic is Arithmetic.INT8:
        return products * (0.001 if has_amx() else 0.002)
    return products * (0.013 if arithmetic is Arithmetic.FLOAT32 else 0.026)


def make_products(
    synapse: ConvSynapse | DenseSynapse,
    source: tuple[int, ...],
    arithmetic: Arithmetic,
    offset: int,
) -> Multiply:
    """The sums of a synapse whose source has the shape (C, H, W) or (F,).

    Raises
    ------
    ProgramError
        If the engine does not know the synapse.
    """
    if not isinstance(synapse, ConvSynapse | DenseSynapse):
        raise ProgramError("the engine does not sum this synapse", found=type(synapse).__name__)
    dtype = _DTYPES[arithmetic]
    if isinstance(synapse, DenseSynapse):
        matrix = dense_weight(synapse, source, dtype)
    elif pays_unrolled(synapse, source):
        matrix = unrolled_weight(synapse, source, dtype)
    elif arithmetic is Arithmetic.INT8:
        return _Int8Convolution(synapse, source, offset)
    else:
        return _FloatConvolution(synapse, dtype)
    return _Int8Dense(matrix, offset) if arithmetic is Arithmetic.INT8 else _Dense(matrix)


_DTYPES = {
    Arithmetic.INT8: torch.int8,
    Arithmetic.FLOAT32: torch.float32,
    Arithmetic.FLOAT64: torch.float64,
}


def dense_weight(synapse: DenseSynapse, source: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Weights (F_out, F_in) for spikes in H, W, C order; the program has C, H, W order."""
    weight = torch.from_numpy(synapse.weight.copy()).reshape(-1, *source)
    laid_out = weight.movedim(1, -1) if len(source) == 3 else weight
    return laid_out.flatten(1).to(dtype).contiguous()


def pays_unrolled(synapse: ConvSynapse, source: tuple[int, ...]) -> bool:
    """Whether a convolution is faster as a matrix product, see `UNROLLED`."""
    sites = prod(source[1:]) * prod(synapse.output_shape(source)[1:])
    return synapse.groups == 1 and sites <= UNROLLED * prod(synapse.weight.shape[2:])


def unrolled_weight(synapse: ConvSynapse, source: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A convolution as a matrix, (H_out W_out C_out, H W C_in)."""
    weight = torch.from_numpy(synapse.weight.copy()).to(dtype)
    height, width, channels = plane_of(synapse.output_shape(source))
    matrix = torch.zeros((height, width, channels, *plane_of(source)), dtype=dtype)
    rows, columns = (synapse.met(source, axis) for axis in range(2))
    for y, a in np.argwhere(rows >= 0):
        for x, b in np.argwhere(columns >= 0):
            matrix[y, x, :, rows[y, a], columns[x, b]] = weight[:, :, a, b]
    return matrix.reshape(height * width * channels, -1)


class _Int8Convolution:
    """Convolution of uint8 (m, H, W, C), zero point `offset`, with int8 weights, to float32."""

    def __init__(self, synapse: ConvSynapse, source: tuple[int, ...], offset: int) -> None:
        channels = len(synapse.weight)
        self._geometry = (
            list(synapse.stride),
            list(synapse.padding),
            list(synapse.dilation),
            synapse.groups,
        )
        self._scales = torch.ones(channels)
        self._zeros = torch.zeros(channels, dtype=torch.int64)
        self._offset = offset
        self._weight = onednn.qconv_prepack(
            torch.from_numpy(synapse.weight.astype(np.int8)),
            self._scales,
            1.0,
            offset,
            *self._geometry,
            [1, *source],
        )

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        total: Tensor = onednn.qconv2d_pointwise(
            coded.permute(0, 3, 1, 2),
            1.0,
            self._offset,
            self._weight,
            self._scales,
            self._zeros,
            None,
            *self._geometry,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return total.permute(0, 2, 3, 1).contiguous()


class _FloatConvolution:
    def __init__(self, synapse: ConvSynapse, dtype: torch.dtype) -> None:
        weight = torch.from_numpy(synapse.weight.copy()).to(dtype)
        self._weight = weight.to(memory_format=torch.channels_last)
        self._synapse = synapse

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        spikes = (coded.to(self._weight.dtype) - offset).permute(0, 3, 1, 2)
        s = self._synapse
        # NNPACK's convolutions are not plain sums of products (see `currents`).
        with WITHOUT_NNPACK:
            total = F.conv2d(spikes, self._weight, None, s.stride, s.padding, s.dilation, s.groups)
        return total.permute(0, 2, 3, 1).contiguous()


class _Int8Dense:
    """Product of uint8 (m, H, W, C), zero point `offset`, with int8 weights, to float32."""

    def __init__(self, weight: Tensor, offset: int) -> None:
        outputs = len(weight)
        self._scales = torch.ones(outputs)
        self._zeros = torch.zeros(outputs, dtype=torch.int64)
        self._offset = offset
        self._weight = onednn.qlinear_prepack(weight, None)

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        total: Tensor = onednn.qlinear_pointwise(
            coded.flatten(1),
            1.0,
            self._offset,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return total


class _Dense:
    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        return F.linear(coded.flatten(1).to(self._weight.dtype) - offset, self._weight)
