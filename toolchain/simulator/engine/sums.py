"""Exact synaptic sums over a block of steps, with the fastest arithmetic that is proved exact.

- int8: oneDNN's convolution or product of unsigned bytes with signed 8-bit weights. It adds up in
  int32 and hands out float32, which is exact below 2^24. Without VNNI instructions such kernels may
  saturate in 16 bits, so they are used only where the processor has them.
- float32 and float64 by the same bounds as in the reference simulator.

The first result of each synapse is compared with a sum in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache, singledispatch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import BackendRunError, ProgramError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse
from toolchain.simulator.currents import COMPARED_SAMPLES, exact_dtype, synaptic_current
from toolchain.simulator.engine.coded import CodedSpikes, coded_offset, plane_of
from toolchain.simulator.engine.events import FEW_WEIGHTS, EventSum, Planes, sort_planes

INT8 = IntRange.signed(8)
_Sum = Callable[[Tensor, int], Tensor]
"""From spikes (m, H, W, C), as coded, and their offset."""


class Arithmetic(Enum):
    """How a synapse is summed up."""

    INT8 = "int8"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


@cache
def has_int8() -> bool:
    """Whether oneDNN's int8 sums are there and exact: the processor has VNNI."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    names = ("qconv2d_pointwise", "qlinear_pointwise")
    there = all(hasattr(torch.ops.onednn, name) for name in names)
    return bool(supported and supported() and there)


def choose_arithmetic(name: str, synapse: Synapse, spikes: IntRange) -> Arithmetic:
    """The fastest exact arithmetic for spikes in this range.

    Raises
    ------
    ValueRangeError
        If not even float64 is exact.
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


class SynapticSum:
    """Sums of one synapse of the population called `name`; `shift` is its weight exponent.

    `__call__` gives them without the exponent: floating point (T, n, H, W, C), integers all.
    """

    def __init__(
        self, name: str, synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...], of: IntRange
    ) -> None:
        self.shift = synapse.weight_exponent
        self.arithmetic = choose_arithmetic(name, synapse, of)
        self._name = name
        self._synapse = synapse
        self._out = plane_of(synapse.output_shape(source))
        self._sum = _prepare(synapse, source, self.arithmetic, coded_offset(of) or 0)
        self._unverified = self.arithmetic is not Arithmetic.FLOAT64
        ungrouped = isinstance(synapse, ConvSynapse) and synapse.groups == 1
        by_events = ungrouped and self.arithmetic is not Arithmetic.FLOAT64
        self._event_channels = self._out[2] if by_events else 0
        self._event_sum: EventSum | None = None

    def __call__(self, spikes: CodedSpikes) -> np.ndarray:
        """Sums; one step of zeros where nothing arrives at all.

        Raises BackendRunError if the first result is not exact.
        """
        steps, samples = spikes.values.shape[:2]
        values = torch.from_numpy(spikes.values).flatten(0, 1)
        planes = self._sorted(values, spikes)
        if planes is None:
            result = self._exact(values, spikes)
        elif not len(planes.dense) and not len(planes.sparse):
            return np.zeros((1, samples, *self._out), np.float32)
        else:
            result = self._of_planes(values, spikes, planes)
        return result.reshape(steps, samples, *self._out)

    def _sorted(self, values: Tensor, spikes: CodedSpikes) -> Planes | None:
        if not spikes.is_byte or self._synapse.weight[0].size <= FEW_WEIGHTS:
            return None
        return sort_planes(values.numpy(), spikes.offset, self._event_channels)

    def _of_planes(self, values: Tensor, spikes: CodedSpikes, planes: Planes) -> np.ndarray:
        result = torch.zeros((len(values), *self._out))
        if len(planes.dense):
            which = torch.from_numpy(planes.dense)
            found = self._exact(values[which], spikes)
            result = result.to(torch.from_numpy(found).dtype)
            result.index_copy_(0, which, torch.from_numpy(found))
        if len(planes.sparse):
            assert isinstance(self._synapse, ConvSynapse)
            self._event_sum = self._event_sum or EventSum(self._synapse)
            self._event_sum.add(values.numpy(), spikes.offset, planes.sparse, result.numpy())
        return result.numpy()

    def _exact(self, values: Tensor, spikes: CodedSpikes) -> np.ndarray:
        """Sums of bytes (m, H, W, C) of these spikes."""
        found = self._sum(values, spikes.offset).numpy().reshape(-1, *self._out)
        if self._unverified:
            self._verify(values[:COMPARED_SAMPLES], spikes, found[:COMPARED_SAMPLES])
            self._unverified = False
        return found

    def _verify(self, values: Tensor, spikes: CodedSpikes, result: np.ndarray) -> None:
        plain = (values.long() - spikes.offset).movedim(-1, 1).reshape(-1, *spikes.shape)
        exact = synaptic_current(self._synapse, plain, torch.float64) >> self.shift
        found = torch.from_numpy(result).movedim(-1, 1).reshape(exact.shape)
        if not torch.equal(found.long(), exact):
            raise BackendRunError(
                f"{self.arithmetic.value} sums of this torch build are not exact",
                node=self._name,
                found=f"torch {torch.__version__}",
                remedy="please report it; another build of torch may do",
            )


@singledispatch
def _prepare(synapse: object, source: tuple[int, ...], arithmetic: Arithmetic, offset: int) -> _Sum:
    raise ProgramError("the engine does not sum this synapse", found=type(synapse).__name__)


@_prepare.register
def _(synapse: ConvSynapse, source: tuple[int, ...], arithmetic: Arithmetic, offset: int) -> _Sum:
    if arithmetic is Arithmetic.INT8:
        return _Int8Convolution(synapse, source, offset)
    return _FloatConvolution(synapse, _DTYPES[arithmetic])


@_prepare.register
def _(synapse: DenseSynapse, source: tuple[int, ...], arithmetic: Arithmetic, offset: int) -> _Sum:
    if arithmetic is Arithmetic.INT8:
        return _Int8Dense(synapse, source, offset)
    return _Dense(synapse, source, _DTYPES[arithmetic])


_DTYPES = {Arithmetic.FLOAT32: torch.float32, Arithmetic.FLOAT64: torch.float64}


class _Int8Convolution:
    """uint8 (m, H, W, C) with zero point `offset`, times int8 weights, to float32."""

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
        self._weight = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(synapse.weight.astype(np.int8)),
            self._scales,
            1.0,
            offset,
            *self._geometry,
            [1, *source],
        )

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        total: Tensor = torch.ops.onednn.qconv2d_pointwise(
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
        # NNPACK's convolutions are not sums of products only (see `currents`).
        with torch.backends.nnpack.flags(enabled=False):
            total = F.conv2d(spikes, self._weight, None, s.stride, s.padding, s.dilation, s.groups)
        return total.permute(0, 2, 3, 1).contiguous()


def _dense_weight(synapse: DenseSynapse, source: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """(F_out, F_in) for spikes that lie in H, W, C order; the program's are in C, H, W order."""
    weight = torch.from_numpy(synapse.weight.copy()).reshape(-1, *source)
    laid_out = weight.movedim(1, -1) if len(source) == 3 else weight
    return laid_out.flatten(1).to(dtype).contiguous()


class _Int8Dense:
    """uint8 (m, H, W, C) with zero point `offset`, times int8 weights, to float32."""

    def __init__(self, synapse: DenseSynapse, source: tuple[int, ...], offset: int) -> None:
        outputs = len(synapse.weight)
        self._scales = torch.ones(outputs)
        self._zeros = torch.zeros(outputs, dtype=torch.int64)
        self._offset = offset
        weight = _dense_weight(synapse, source, torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(weight, None)

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        total: Tensor = torch.ops.onednn.qlinear_pointwise(
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
    def __init__(self, synapse: DenseSynapse, source: tuple[int, ...], dtype: torch.dtype) -> None:
        self._weight = _dense_weight(synapse, source, dtype)

    def __call__(self, coded: Tensor, offset: int) -> Tensor:
        return F.linear(coded.flatten(1).to(self._weight.dtype) - offset, self._weight)
