"""Synaptic currents in exact integers, by floating-point sums that are proved to be exact.

Every partial sum of a synapse is an integer of at most the sum of its absolute weights times the
largest spike, in whatever order it is added up. Below 2^24 that is exact in float32, below 2^53
in float64; beyond, it is refused. Algorithms that do not only multiply and add are kept out:
NNPACK's convolutions (Winograd, off by 0.05 on small integers) are switched off. The first result
of every float32 synapse, and that of random spikes, are compared with float64, which sums up the
synapse from then on if they differ.
"""

from __future__ import annotations

import logging
import os
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.population import Population
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse

EXACT_FLOAT32 = 2**24
"""Integers up to here are exact in float32 (IEEE 754: 24 significant bits)."""
EXACT_FLOAT64 = 2**53
"""Integers up to here are exact in float64 (IEEE 754: 53 significant bits)."""
COMPARED_SAMPLES = 2
"""Samples of the first batch that are summed in float64 as well."""
PROBE_SEED = 0

_log = logging.getLogger(__name__)
_PROCESS = os.getpid()


class ExactCurrent:
    """The current of one synapse of the population called `name`, for spikes in `spikes`.

    Raises
    ------
    ValueRangeError
        If a sum could pass what float64 holds exactly.
    """

    def __init__(self, name: str, synapse: Synapse, spikes: IntRange) -> None:
        self._name = name
        self._synapse = synapse
        self._range = spikes
        self._dtype = exact_dtype(name, synapse, spikes)
        self._unverified = self._dtype is torch.float32

    def __call__(self, spikes: Tensor) -> Tensor:
        """Current int64 (N, ...) for spikes int64 (N, ...)."""
        current = synaptic_current(self._synapse, spikes, self._dtype)
        if self._unverified:
            self._unverified = False
            random = probe(self._range, tuple(spikes.shape[1:]))
            exact = synaptic_current(self._synapse, torch.cat([spikes[:1], random]), torch.float64)
            found = synaptic_current(self._synapse, random, self._dtype)
            if not torch.equal(torch.cat([current[:1], found]), exact):
                report_inexact(self._name, "float32")
                self._dtype = torch.float64
                return synaptic_current(self._synapse, spikes, self._dtype)
        return current


def settle_threads() -> None:
    """Have torch use one thread in a forked process, where it would wait for its parent's."""
    if os.getpid() != _PROCESS and torch.get_num_threads() > 1:
        _log.info("a forked process: one thread")
        torch.set_num_threads(1)


def probe(spikes: IntRange, shape: tuple[int, ...]) -> Tensor:
    """One sample of random spikes in this range, int64 (1, ...): what a wrong sum shows on.

    The first spikes of a run may be few, and those of a deep layer none.
    """
    generator = torch.Generator().manual_seed(PROBE_SEED)
    return torch.randint(spikes.low, spikes.high + 1, (1, *shape), generator=generator)


def report_inexact(name: str, way: str) -> None:
    """Log that the sums of the population `name` are made in another way than `way`."""
    _log.warning(
        "%s: %s sums of torch %s are not exact here; a slower, exact way is taken",
        name,
        way,
        torch.__version__,
    )


def exact_dtype(name: str, synapse: Synapse, spikes: IntRange) -> torch.dtype:
    """float32 or float64: the smaller one that holds every partial sum exactly.

    Raises
    ------
    ValueRangeError
        If a sum of the population `name` could pass what float64 holds exactly.
    """
    bound = largest_sum(synapse, spikes)
    if bound >= EXACT_FLOAT64:
        raise ValueRangeError(
            "a sum may pass what float64 holds exactly",
            node=name,
            found=bound,
            allowed=EXACT_FLOAT64,
        )
    return torch.float32 if bound < EXACT_FLOAT32 else torch.float64


@singledispatch
def synaptic_current(synapse: Synapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    """Current int64 (N, ...) for spikes int64 (N, ...), summed up in `dtype`."""
    raise ProgramError("no simulation for this synapse", found=type(synapse).__name__)


@synaptic_current.register
def _(synapse: ConvSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.backends.nnpack.flags(enabled=False):
        total = F.conv2d(
            spikes.to(dtype),
            torch.from_numpy(synapse.weight.copy()).to(dtype),
            None,
            synapse.stride,
            synapse.padding,
            synapse.dilation,
            synapse.groups,
        )
    return total.long() << synapse.weight_exponent


@synaptic_current.register
def _(synapse: DenseSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    weight = torch.from_numpy(synapse.weight.copy()).to(dtype)
    return F.linear(spikes.flatten(1).to(dtype), weight).long() << synapse.weight_exponent


@synaptic_current.register
def _(synapse: WindowSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    """Nothing is summed: one element of the last axis for each position of the window."""
    _, height, width = synapse.output_shape(tuple(spikes.shape[1:]))
    (above, left), (down, right) = synapse.padding, synapse.stride
    padded = F.pad(spikes, (left, left, above, above))
    return torch.stack(
        [
            padded[:, :, top : top + down * height : down, start : start + right * width : right]
            for top in range(0, synapse.kernel[0] * synapse.dilation[0], synapse.dilation[0])
            for start in range(0, synapse.kernel[1] * synapse.dilation[1], synapse.dilation[1])
        ],
        dim=-1,
    )


def per_channel(population: Population, values: np.ndarray) -> Tensor:
    """`values`, int (C,), as int64 that broadcasts against (N, C, H, W) or (N, F)."""
    return torch.from_numpy(population.per_channel(values).astype(np.int64))
