"""Second moments of a layer's inputs on calibration data, which weight its rounding errors.

A row is the input of one output neuron in one step: the spikes under the kernel
(im2col) of every synapse of the population, and a 1 for the bias. `G = sum over samples and
positions of x x^T` is, up to a factor, the Hessian of the layer's squared output error: for
errors `d` of one channel's weights and bias, `sum (d x)^2 = d G d^T`.

Channels whose synapses read the same inputs share a G. With groups, the channels fall into as
many parts of equal size as the least common multiple of the synapses' groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from math import ceil, lcm

import numpy as np
import torch
from torch import Tensor

from toolchain.errors import ProgramError
from toolchain.program.float_program import Conv2d, Linear
from toolchain.simulator.planes import windows

CHUNK = 1 << 24
"""Elements of an unfolded batch processed at once: 128 MiB in float64."""
FEW = 4
"""Rows are few where this many times their number is at most that of the columns.

The operations of `gptq` are then as many with the rows as with G, or fewer.
"""
SEEN, SEEN_PER_INPUT = 1 << 14, 8
"""Rows, and rows per input, that a layer is measured on; others are left out by chance."""


@singledispatch
def unfolded(operation: object, x: Tensor) -> Tensor:
    """Inputs of each output position: (N, groups, K, positions) for x (N, ...)."""
    raise ProgramError("no unfolding for this layer", found=type(operation).__name__)


@unfolded.register
def _(operation: Conv2d, x: Tensor) -> Tensor:
    columns = windows(operation, x)
    return columns.reshape(len(x), operation.groups, -1, columns.shape[-1])


@unfolded.register
def _(operation: Linear, x: Tensor) -> Tensor:
    return x.flatten(1)[:, None, :, None]


class InputMoments:
    """Accumulates `G` of one population, batch by batch, in float64.

    Where few rows are expected, the rows themselves are kept: they are smaller than G, and
    `gptq` has less work with them.

    Parameters
    ----------
    operations:
        The population's convolutions or dense layers, one per synapse, in order.
    expected:
        Number of rows that there are: samples times output positions.

    Attributes
    ----------
    gram:
        Tensor (parts, K + 1, K + 1), where K is the number of inputs of all synapses side by side;
        the last row and column belong to the bias. None where the rows are kept.
    rows:
        Number of rows in each G.
    """

    def __init__(self, operations: Sequence[Conv2d | Linear], expected: int) -> None:
        self.operations = tuple(operations)
        self.groups = [_groups(o) for o in self.operations]
        self.parts, self.width, few = self._shape(self.operations, expected)
        self.gram: Tensor | None = None
        if not few:
            self.gram = torch.zeros(self.parts, self.width, self.width, dtype=torch.float64)
        self.rows = 0
        self._kept: list[Tensor] = []
        self._share = min(1.0, (SEEN + SEEN_PER_INPUT * self.width) / max(expected, 1))
        self._chance = torch.Generator().manual_seed(0)

    @staticmethod
    def _shape(operations: Sequence[Conv2d | Linear], expected: int) -> tuple[int, int, bool]:
        parts = lcm(*(_groups(o) for o in operations))
        width = sum(int(np.prod(o.weight.shape[1:])) for o in operations) + 1
        return parts, width, FEW * expected <= width

    @classmethod
    def bytes_for(cls, operations: Sequence[Conv2d | Linear], expected: int) -> int:
        """Size of G, or of the rows, in bytes."""
        parts, width, few = cls._shape(operations, expected)
        return parts * width * (expected if few else width) * 8

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Add a batch: for every synapse its spikes of one step, (N, ...).

        Rates (spike counts divided by the steps) represent the spikes of an average step.
        Without operations there is nothing to add.
        """
        if not self.operations:
            return
        outputs = sum(int(np.prod(x.shape[1:])) for x in inputs)
        reach = max(int(np.prod(o.weight.shape[2:])) for o in self.operations)
        size = max(1, CHUNK // (outputs * reach))
        for start in range(0, len(inputs[0]), size):
            self._add([x[start : start + size].double() for x in inputs])

    def _add(self, inputs: list[Tensor]) -> None:
        columns = [
            unfolded(operation, x).repeat_interleave(self.parts // groups, dim=1)
            for operation, x, groups in zip(self.operations, inputs, self.groups, strict=True)
        ]
        count, _, _, positions = columns[0].shape
        ones = torch.ones(count, self.parts, 1, positions, dtype=torch.float64)
        stacked = torch.cat([*columns, ones], dim=2).permute(1, 2, 0, 3)
        stacked = stacked.reshape(self.parts, self.width, -1)
        if self._share < 1:
            places = torch.randperm(count * positions, generator=self._chance)
            stacked = stacked[..., places[: ceil(len(places) * self._share)]]
        if self.gram is None:
            self._kept.append(stacked.mT)
        else:
            self.gram += stacked @ stacked.mT
        self.rows += stacked.shape[-1]

    def inputs(self, part: int) -> Tensor:
        """The rows of one part of the channels, (rows, K + 1), where they are kept."""
        return torch.cat([kept[part] for kept in self._kept])

    def mean_squares(self, part: int) -> Tensor:
        """`E[s^2]` of each input of one part of the channels and of the bias, (K + 1,)."""
        if self.gram is None:
            return self.inputs(part).square().sum(0) / max(self.rows, 1)
        return self.gram[part].diagonal() / max(self.rows, 1)

    def second_moments(self) -> list[np.ndarray]:
        """`E[s^2]` of each synapse's inputs, float64 (K,), or (C, K) where channels differ."""
        means = torch.stack([self.mean_squares(part)[:-1] for part in range(self.parts)]).numpy()
        channels = len(self.operations[0].weight)
        each = means[0] if self.parts == 1 else np.repeat(means, channels // self.parts, axis=0)
        widths = [int(np.prod(o.weight.shape[1:])) for o in self.operations]
        return np.split(each, np.cumsum(widths)[:-1], axis=-1)


def _groups(operation: Conv2d | Linear) -> int:
    return operation.groups if isinstance(operation, Conv2d) else 1
