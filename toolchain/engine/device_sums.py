"""Exact synaptic sums on a GPU, as matrix products of integers.

- int8: `int_product`, which sums in int32 (on tensor cores, if available). Graded spikes
  up to 255 are shifted into the range of signed bytes, and the sums are corrected.
- float64 for grouped convolutions and values that do not fit bytes, if it is proved exact.

Convolutions become products with the windows as rows. Those of cuDNN are not used: they return
bfloat16 for bfloat16, and with float32 they may choose Winograd's algorithm, whose
fractions do not cancel. The CPU gives the same bits,
which is how this file is tested. The first result of each synapse, and that of random spikes, are
compared with float64 on the CPU; if int8 gives other sums, or fails, float64 replaces it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.spike_encoding import INT8, plane_of
from toolchain.errors import BackendRunError
from toolchain.int_range import IntRange
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.simulator.currents import (
    COMPARED_SAMPLES,
    exact_current,
    exact_dtype,
    no_way_left,
    probe,
    report_failed,
    report_inexact,
)
from toolchain.simulator.planes import seen
from toolchain.torch_private import int_product

INT32 = IntRange.signed(32)
WINDOWS = 256 << 20
"""Bytes of windows arranged at once."""
MULTIPLE = 8
"""On CUDA, the sizes of inputs and outputs of `int_product` must be multiples of this."""
MANY_ROWS = 17
"""Fewest rows that `int_product` takes on CUDA."""
ON_DEVICE = "leave out device=, and please report it"
"""Remedy if the device's sums fail in int8 and in float64."""


def byte_shift(spikes: IntRange) -> int | None:
    """Number subtracted from spikes of this range to make them signed bytes; None if none fits."""
    low, high = min(spikes.low, 0), max(spikes.high, 0)
    if INT8.contains(low, high):
        return 0
    shift = high - INT8.high
    return shift if low - shift >= INT8.low else None


class DeviceSum:
    """Sums of one synapse of the population called `name`; `shift` is its weight exponent.

    `__call__` takes spikes, int (m, H, W, C), and returns sums without the exponent, int32 or int64
    (m, H_out, W_out, C_out).

    Raises
    ------
    ValueRangeError
        If a sum could exceed the exact range of float64.
    """

    def __init__(
        self,
        name: str,
        synapse: ConvSynapse | DenseSynapse,
        source: tuple[int, ...],
        of: IntRange,
        device: torch.device,
    ) -> None:
        exact_dtype(name, synapse, of)
        self.shift = synapse.weight_exponent
        self._name = name
        self._synapse = synapse
        self._source = source
        self._out = plane_of(synapse.output_shape(source))
        self._groups = synapse.groups if isinstance(synapse, ConvSynapse) else 1
        self._device = device
        self._range = of
        weight = _rows(synapse, source)
        moved = byte_shift(of)
        whole_bytes = INT8.contains(int(weight.min()), int(weight.max()))
        largest = largest_sum(synapse, IntRange(INT8.low, INT8.high)) >> self.shift
        self._int8 = (
            self._groups == 1
            and moved is not None
            and whole_bytes
            and INT32.contains(-2 * largest, 2 * largest)
        )
        self._moved = moved if self._int8 and moved is not None else 0
        if self._int8:
            self._restored = torch.from_numpy(self._moved * weight.sum(1)).to(device)
            spare = (-weight.shape[0] % MULTIPLE, -weight.shape[1] % MULTIPLE)
            padded = np.pad(weight, ((0, spare[0]), (0, spare[1]))).astype(np.int8)
            self._weight = torch.from_numpy(padded).to(device).t()
        else:
            self._take_float64()
        self._unverified = True

    def _take_float64(self) -> None:
        weight = _rows(self._synapse, self._source)
        grouped = weight.reshape(self._groups, -1, weight.shape[1]).transpose(0, 2, 1)
        self._weight = torch.from_numpy(grouped.astype(np.float64)).to(self._device)
        self._int8, self._moved = False, 0

    def __call__(self, spikes: Tensor) -> Tensor:
        """Sum the spikes; raises BackendRunError if neither arithmetic gives exact sums."""
        while True:
            try:
                total = self._of_all(spikes)
                if not self._unverified or self._is_exact(spikes, total):
                    self._unverified = False
                    return total
            except RuntimeError as error:
                if not self._int8:
                    raise no_way_left(self._name, error, ON_DEVICE) from error
                report_failed(self._name, "int8", error)
            else:
                if not self._int8:
                    raise BackendRunError(
                        f"sums on {total.device} are not exact",
                        node=self._name,
                        found=f"torch {torch.__version__}",
                        remedy=ON_DEVICE,
                    )
                report_inexact(self._name, "int8")
            self._take_float64()

    def _of_all(self, spikes: Tensor) -> Tensor:
        sites = self._out[0] * self._out[1] * self._weight[..., 0].numel()
        at_once = max(1, WINDOWS // (sites * (1 if self._int8 else 8)))
        parts = [self._of_part(part) for part in torch.split(spikes, at_once)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _of_part(self, spikes: Tensor) -> Tensor:
        samples = len(spikes)
        if self._int8:
            rows = self._windows((spikes.int() - self._moved).to(torch.int8))
            total = _int_product(rows, self._weight)[:, : self._out[2]] + self._restored.int()
        else:
            rows = self._windows(spikes.double())
            grouped = rows.reshape(len(rows), -1, self._groups, self._in_group())
            by_group = grouped.permute(2, 0, 1, 3).reshape(self._groups, len(rows), -1)
            total = torch.bmm(by_group, self._weight).permute(1, 0, 2).reshape(len(rows), -1).long()
        return total.reshape(samples, *self._out)

    def _in_group(self) -> int:
        """Number of source channels per group."""
        return plane_of(self._source)[2] // self._groups

    def _windows(self, planes: Tensor) -> Tensor:
        """Windows (m H_out W_out, K_h K_w C) of planes (m, H, W, C), with zeros as padding."""
        s = self._synapse
        if isinstance(s, DenseSynapse):
            return planes.reshape(len(planes), -1)
        by_channel = seen(s, planes.permute(0, 3, 1, 2), -self._moved)
        padded = by_channel.permute(0, 2, 3, 1).contiguous()
        sample, row, column, channel = padded.stride()
        windows = padded.as_strided(
            (len(planes), *self._out[:2], *s.kernel, planes.shape[3]),
            (
                sample,
                row * s.stride[0],
                column * s.stride[1],
                row * s.dilation[0],
                column * s.dilation[1],
                channel,
            ),
        )
        return windows.reshape(len(planes) * self._out[0] * self._out[1], -1)

    def _is_exact(self, spikes: Tensor, total: Tensor) -> bool:
        """Whether the first sums, and those of random spikes, equal float64 sums on the CPU."""
        random = probe(self._range, plane_of(self._source))
        first, of_first = spikes[:COMPARED_SAMPLES].cpu().long(), total[:COMPARED_SAMPLES]
        of_random = self._of_all(random.to(spikes.device, spikes.dtype))
        planes = torch.cat([first, random]).movedim(-1, 1).reshape(-1, *self._source)
        exact = exact_current(self._name, self._synapse, planes) >> self.shift
        found = torch.cat([of_first, of_random]).cpu().long().movedim(-1, 1)
        return torch.equal(found.reshape(exact.shape), exact)


def _rows(synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...]) -> np.ndarray:
    """Weights as int64 (C_out, K), in the order of the windows: K_h, K_w, C or H, W, C."""
    weight = synapse.weight.astype(np.int64)
    if isinstance(synapse, DenseSynapse):
        weight = weight.reshape(-1, *source)
    if weight.ndim == 4:
        weight = weight.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(weight.reshape(len(weight), -1))


def _int_product(rows: Tensor, weight: Tensor) -> Tensor:
    """Product int32 (m, n) of int8 (m, k) and (k', n), where k is padded to k'."""
    missing = (0, weight.shape[0] - rows.shape[1], 0, max(0, MANY_ROWS - len(rows)))
    filled = F.pad(rows, missing) if any(missing) else rows
    return int_product(filled.contiguous(), weight)[: len(rows)]
