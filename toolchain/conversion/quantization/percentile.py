"""Thresholds for plain ReLU networks, from a percentile of each ReLU's output.

`relu_choice` takes these where the user gives a percentile; `relu_fit` chooses better ones.

A ReLU has no threshold of its own. The usual choice is a high percentile of its outputs over a
calibration set (Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient
Event-Driven Networks for Image Classification", Frontiers in Neuroscience 2017, who recommend
99 to 99.999): what lies above is clipped, and the levels below get finer. The quantized
activation then has as many levels as the spiking network has wake steps, and shift 1/2 (the
initial potential theta / 2 of Bu et al., ICLR 2022).

Each channel has its own percentile. A spike of a channel is worth its threshold, and the weights
behind it take that up, so this is the equalisation of channels (ReLU is positively homogeneous:
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019),
exact in float: a channel of small values sends as many spikes as one of large values, and its
weights do not take the integer range of the others'. A channel that hardly ever fires would get a
threshold far below the value of a single incoming spike, so each threshold is at least `SMALLEST`
times the largest sum of its channel, positive or negative.

The percentile is over all outputs of a channel, zeros included, all samples and positions together,
linear between the two nearest ranks (`numpy.percentile`'s default): with n values in ascending
order and r = (n - 1) p / 100, it is `v[floor(r)]` plus the fraction of r times the distance to
the next. Only the largest values down to rank floor(r) are stored, so that memory is bounded by
the share above the percentile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import floor, prod

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.float_values import node_values
from toolchain.errors import ConversionError
from toolchain.program.float_program import Activation, FloatProgram

SHIFT = 0.5
LOWEST, HIGHEST = 90.0, 100.0
"""Smallest and largest percentile.

Clipping a tenth of all outputs is more than any network tolerates, and the memory needed grows
with the share above the percentile.
"""
SMALLEST = 1 / 64
"""Smallest threshold, in units of the channel's largest sum in calibration: the few outputs of a
channel that is silent otherwise are rounded by at most this part of that sum."""


class RunningPercentile:
    """The exact percentiles of `rows` sets of values that come in parts, `total` in each set."""

    def __init__(self, percentile: float, rows: int, total: int) -> None:
        self._rank = (total - 1) * percentile / 100.0
        self._kept = total - floor(self._rank)
        self._largest = torch.empty((rows, 0), dtype=torch.float64)
        self._total, self._seen = total, 0

    def add(self, values: Tensor) -> None:
        """Take more values, (rows, n)."""
        self._seen += values.shape[1]
        every = torch.cat([self._largest, values.double()], dim=1)
        self._largest = torch.topk(every, min(self._kept, every.shape[1])).values

    @property
    def values(self) -> np.ndarray:
        """The percentiles, float64 (rows,); raises ValueError before all values are there."""
        if self._seen != self._total:
            raise ValueError(f"{self._seen} of {self._total} values")
        low, high = self._largest[:, -1], self._largest[:, max(self._kept - 2, 0)]
        found: np.ndarray = (low + (self._rank - floor(self._rank)) * (high - low)).numpy()
        return found


def plain_relus(program: FloatProgram) -> list[Activation]:
    """Activations that replace ReLUs, also bounded ones (ReLU6)."""
    return [n for n in program.nodes if isinstance(n, Activation) and n.bound is not None]


def with_bounds(program: FloatProgram, *, levels: int) -> FloatProgram:
    """`program` with bounded ReLUs (ReLU6) of `levels` levels up to their bounds."""
    nodes = (
        replace(n, levels=levels) if isinstance(n, Activation) and n.bound is not None else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(nodes))


def with_thresholds(
    program: FloatProgram,
    batches: Iterable[Tensor],
    samples: int,
    *,
    percentile: float,
    levels: int,
) -> FloatProgram:
    """`program` with every plain ReLU replaced by a quantized activation of `levels` levels.

    `batches` contain `samples` normalised samples in all, float64 (n, ...); all other activations
    quantize unchanged while the ReLUs are measured.

    Raises
    ------
    ConversionError
        If the percentile is out of range, the network has no plain ReLU, or a ReLU is dead.
    """
    if not LOWEST <= percentile <= HIGHEST:
        raise ConversionError(
            "percentile out of range", found=percentile, allowed=f"{LOWEST:g} .. {HIGHEST:g}"
        )
    relus = plain_relus(program)
    if not relus:
        raise ConversionError(
            "the network has no plain ReLU to give a threshold to",
            remedy="leave relu_percentile= out",
        )
    shapes = program.shapes()
    channels = {n.name: shapes[n.name][0] for n in relus}
    peaks = {name: torch.zeros(c, dtype=torch.float64) for name, c in channels.items()}
    running = {
        name: RunningPercentile(percentile, c, samples * prod(shapes[name]) // c)
        for name, c in channels.items()
    }
    for batch in batches:
        values = node_values(program, batch, clipped=running)
        for name, measured in running.items():
            measured.add(values[name].transpose(0, 1).flatten(1))
            sums = values[program.node(name).source].transpose(0, 1).flatten(1)
            peaks[name] = torch.maximum(peaks[name], sums.abs().amax(1))
    found = {name: measured.values for name, measured in running.items()}
    for name, threshold in found.items():
        if not threshold.any():
            raise dead_relu(name, f"percentile {percentile:g} over {samples} samples is 0")
        found[name] = np.maximum(threshold, SMALLEST * peaks[name].numpy())
        # A channel that no sample of the calibration reaches at all: any threshold will do.
        found[name][found[name] == 0] = found[name].max()
    nodes = (
        replace(n, threshold=np.minimum(found[n.name], n.bound), levels=levels)
        if isinstance(n, Activation) and n.bound is not None
        else n
        for n in program.nodes
    )
    return replace(program, nodes=tuple(nodes))


def dead_relu(name: str, found: str) -> ConversionError:
    """An error for a ReLU that passes nothing on."""
    return ConversionError(
        "this ReLU is dead: its outputs are 0 up to the percentile",
        node=name,
        found=found,
        allowed="> 0",
        remedy="raise relu_percentile=, calibrate on more samples, or take the layer out",
    )
