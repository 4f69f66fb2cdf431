"""Synaptic currents in exact integers, by floating-point sums that are proved exact.

Every partial sum of a synapse is an integer whose magnitude is at most the sum of its absolute
weights times the largest spike, in any order of addition. Below 2^24 it is exact in float32, below
2^53 in float64; a larger sum is an error. Algorithms that do not only multiply and add are not
used: NNPACK's convolutions (Winograd, wrong by 0.05 on small integers) are switched off. The first
result of every float32 synapse, and that of random spikes, are compared with float64, which
replaces float32 if they differ, or if the library fails.
"""

from __future__ import annotations

import logging
import os
from functools import singledispatch
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import BackendRunError, ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.population import Population
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse
from toolchain.simulator.planes import correlated, seen

EXACT_FLOAT32 = 2**24
"""Integers up to this are exact in float32 (IEEE 754: 24 significant bits)."""
EXACT_FLOAT64 = 2**53
"""Integers up to this are exact in float64 (IEEE 754: 53 significant bits)."""
COMPARED_SAMPLES = 2
"""Number of samples of the first batch that are also summed in float64."""
PROBE_SEED = 0
ON_PROCESSOR = "install another torch"
"""Remedy if torch fails even in float64."""
NO_MEMORY = "t allocate memory"
"""Part of torch's message when memory is exhausted."""

_log = logging.getLogger(__name__)
_PROCESS = os.getpid()
_set_nnpack: Any = torch.backends.nnpack.set_flags  # it has no types


class _WithoutNnpack:
    """A block in which torch takes no convolution of NNPACK's.

    torch's switch is one for all threads, and its own context manager switches NNPACK on again as
    soon as the first of several threads leaves the block.
    """

    def __init__(self) -> None:
        self._turn = Lock()
        self._inside = 0
        self._before = False

    def __enter__(self) -> None:
        with self._turn:
            if not self._inside:
                (self._before,) = _set_nnpack(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._inside -= 1
            if not self._inside:
                _set_nnpack(self._before)


WITHOUT_NNPACK = _WithoutNnpack()


class ExactCurrent:
    """The current of one synapse of the population called `name`, for spikes in `spikes`.

    Raises
    ------
    ValueRangeError
        If a sum could exceed the exact range of float64.
    """

    def __init__(self, name: str, synapse: Synapse, spikes: IntRange) -> None:
        self._name = name
        self._synapse = synapse
        self._range = spikes
        self._dtype = exact_dtype(name, synapse, spikes)
        self._unverified = self._dtype is torch.float32

    def __call__(self, spikes: Tensor) -> Tensor:
        """Current, int64 (N, ...), for spikes, int64 (N, ...).

        Raises
        ------
        BackendRunError
            If torch fails even in float64.
        """
        if self._dtype is torch.float32:
            try:
                current = synaptic_current(self._synapse, spikes, self._dtype)
                if not self._unverified or self._is_exact(spikes, current):
                    self._unverified = False
                    return current
                report_inexact(self._name, "float32")
            except RuntimeError as error:
                report_failed(self._name, "float32", error)
            self._dtype = torch.float64
        return exact_current(self._name, self._synapse, spikes)

    def _is_exact(self, spikes: Tensor, current: Tensor) -> bool:
        """Whether the first current, and that of random spikes, equal those in float64."""
        random = probe(self._range, tuple(spikes.shape[1:]))
        exact = exact_current(self._name, self._synapse, torch.cat([spikes[:1], random]))
        found = synaptic_current(self._synapse, random, self._dtype)
        return torch.equal(torch.cat([current[:1], found]), exact)


def settle_threads() -> None:
    """Let torch use one thread in a forked process; others would wait for the parent's."""
    if os.getpid() != _PROCESS and torch.get_num_threads() > 1:
        _log.info("a forked process: one thread")
        torch.set_num_threads(1)


def probe(spikes: IntRange, shape: tuple[int, ...]) -> Tensor:
    """One sample of random spikes in this range, int64 (1, ...), which reveals a wrong sum.

    The first spikes of a run may be few, and a deep layer may have none.
    """
    generator = torch.Generator().manual_seed(PROBE_SEED)
    return torch.randint(spikes.low, spikes.high + 1, (1, *shape), generator=generator)


def report_inexact(name: str, way: str) -> None:
    """Log that the sums of the population `name` are not exact by the method `way`."""
    _log.warning(
        "%s: %s sums of torch %s are not exact here; a slower, exact way is taken",
        name,
        way,
        torch.__version__,
    )


def report_failed(name: str, way: str, error: RuntimeError) -> None:
    """Log that torch fails at the sums of the population `name` by the method `way`.

    Raises
    ------
    RuntimeError
        The `error` itself, if memory was exhausted: another method needs no less.
    """
    check_memory(error)
    _log.warning(
        "%s: %s sums of torch %s fail here (%s); a slower, exact way is taken",
        name,
        way,
        torch.__version__,
        " ".join(str(error).split()),
    )


def check_memory(error: RuntimeError) -> None:
    """Raise `error` if it states that memory is exhausted."""
    if isinstance(error, torch.cuda.OutOfMemoryError) or NO_MEMORY in str(error):
        raise error


def no_way_left(name: str, error: RuntimeError, remedy: str) -> BackendRunError:
    """The error for sums of the population `name` at which torch fails by every method."""
    check_memory(error)
    return BackendRunError(
        f"torch {torch.__version__} fails at these sums, and no other way is left",
        node=name,
        found=" ".join(str(error).split()),
        remedy=remedy,
    )


def exact_current(name: str, synapse: Synapse, spikes: Tensor) -> Tensor:
    """Compute `synaptic_current` in float64, for comparison with other methods.

    Raises
    ------
    BackendRunError
        If torch fails.
    """
    try:
        return synaptic_current(synapse, spikes, torch.float64)
    except RuntimeError as error:
        raise no_way_left(name, error, ON_PROCESSOR) from error


def exact_dtype(name: str, synapse: Synapse, spikes: IntRange) -> torch.dtype:
    """The smaller of float32 and float64 in which every partial sum is exact.

    Raises
    ------
    ValueRangeError
        If a sum of the population `name` could exceed the exact range of float64.
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
    """Current, int64 (N, ...), for spikes, int64 (N, ...), summed in `dtype`.

    Raises ProgramError for an unknown synapse.
    """
    raise ProgramError("no simulation for this synapse", found=type(synapse).__name__)


@synaptic_current.register
def _(synapse: ConvSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    with WITHOUT_NNPACK:
        weight = torch.from_numpy(synapse.weight.copy()).to(dtype)
        total = correlated(synapse, spikes.to(dtype), weight)
    return total.long() << synapse.weight_exponent


@synaptic_current.register
def _(synapse: DenseSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    weight = torch.from_numpy(synapse.weight.copy()).to(dtype)
    return F.linear(spikes.flatten(1).to(dtype), weight).long() << synapse.weight_exponent


@synaptic_current.register
def _(synapse: WindowSynapse, spikes: Tensor, dtype: torch.dtype) -> Tensor:
    """Gather the spikes of a window without a sum: one element of the last axis per position."""
    _, height, width = synapse.output_shape(tuple(spikes.shape[1:]))
    down, right = synapse.stride
    padded = seen(synapse, spikes)
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
