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
from math import lcm

import numpy as np
import torch
from torch import Tensor

from toolchain.errors import ProgramError
from toolchain.program.float_program import Conv2d, Linear
from toolchain.simulator.planes import windows

CHUNK = 1 << 24
"""Elements of an unfolded batch processed at once: 128 MiB in float64."""


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

    Parameters
    ----------
    operations:
        The population's convolutions or dense layers, one per synapse, in order.

    Attributes
    ----------
    gram:
        Tensor (parts, K + 1, K + 1), where K is the number of inputs of all synapses side by side;
        the last row and column belong to the bias.
    rows:
        Number of rows in each G: samples times output positions.
    """

    def __init__(self, operations: Sequence[Conv2d | Linear]) -> None:
        self.operations = tuple(operations)
        self.groups = [o.groups if isinstance(o, Conv2d) else 1 for o in self.operations]
        self.parts, width = self._shape(self.operations)
        self.gram = torch.zeros(self.parts, width, width, dtype=torch.float64)
        self.rows = 0

    @staticmethod
    def _shape(operations: Sequence[Conv2d | Linear]) -> tuple[int, int]:
        parts = lcm(*(o.groups if isinstance(o, Conv2d) else 1 for o in operations))
        return parts, sum(int(np.prod(o.weight.shape[1:])) for o in operations) + 1

    @classmethod
    def bytes_for(cls, operations: Sequence[Conv2d | Linear]) -> int:
        """Size of G for these operations, in bytes."""
        parts, width = cls._shape(operations)
        return parts * width * width * 8

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
        stacked = stacked.reshape(self.parts, self.gram.shape[1], -1)
        self.gram += stacked @ stacked.mT
        self.rows += count * positions

    def second_moments(self) -> list[np.ndarray]:
        """`E[s^2]` of each synapse's inputs per output channel, float64 (C, K) each."""
        channels = len(self.operations[0].weight)
        diagonal = (self.gram.diagonal(dim1=1, dim2=2) / max(self.rows, 1)).numpy()
        by_channel = np.repeat(diagonal, channels // self.parts, axis=0)
        widths = [int(np.prod(o.weight.shape[1:])) for o in self.operations]
        return np.split(by_channel[:, :-1], np.cumsum(widths)[:-1], axis=1)
