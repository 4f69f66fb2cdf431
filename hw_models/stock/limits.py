"""Limits of stock Lava synapses, checked before a run."""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse
from toolchain.program.int_program import IntProgram
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse

MAX_GROUPS = 127
"""Largest number of groups of a stock Conv; programs with more are merged, see `groups.py`.

Stock Conv stores groups as int8 and silently returns zeros from 128 on (lava-nc 0.10.0).
"""
MAX_GEOMETRY = 127
"""Largest kernel size, stride, padding and dilation of a stock Conv.

It stores them as int8, and computes in int8 (lava-nc 0.10.0).
"""
CONV_WEIGHT_MAX = (1 << 31) - 1
"""Largest weight of a stock Conv: int32, multiplied in float64 (lava-nc 0.10.0, `conv_scipy`)."""
DENSE_WEIGHT_BITS = 8
"""Width of a weight of a stock Dense, which clips to 8 bits.

With both signs it represents even numbers -256..254 (lava-nc 0.10.0).
"""
DENSE_SUM_BITS = 30
"""Width of a sum of a stock Dense, which sums in int32 without a check.

Weights are doubled here, see `connection.py`.
"""
NEURON_BIAS = IntRange.signed(16)
"""Range of a bias mantissa: LIF and ATRLIF store int16 without a check (lava-nc 0.10.0)."""
CONV_SUM_BITS = 24
"""Width of a sum of a stock Conv, which wraps modulo 24 bits (lava-nc 0.10.0, `signed_clamp`)."""


def check_runnable(program: IntProgram) -> None:
    """Raise TargetError, which names the population, if stock Lava would change a result."""
    sums = {bound.name: bound.current for bound in analyse(program)}
    for population in program.populations:
        for synapse in population.synapses:
            _check_synapse(synapse, population.name, sums[population.name])


@singledispatch
def _check_synapse(synapse: object, name: str, sums: IntRange) -> None:
    raise TargetError("no Lava process for this synapse", node=name, found=type(synapse).__name__)


@_check_synapse.register
def _(synapse: ConvSynapse, name: str, sums: IntRange) -> None:
    reach = [
        dilation * (size - 1) + 1
        for dilation, size in zip(synapse.dilation, synapse.weight.shape[2:], strict=True)
    ]
    padding = synapse.padding if synapse.is_even else ()  # else the spikes are spread before it
    largest = max(*reach, *synapse.stride, *padding, *synapse.dilation)
    if largest > MAX_GEOMETRY:
        raise TargetError(
            "stock Conv keeps this in 8 bits and would compute something else",
            node=name,
            found=f"largest geometry value {largest}",
            allowed=f"<= {MAX_GEOMETRY}",
            remedy="run it on the reference simulator",
        )
    weights = synapse.weight.astype(np.int64) << synapse.weight_exponent
    if np.abs(weights).max() > CONV_WEIGHT_MAX:
        raise TargetError(
            "stock Conv keeps shifted weights in 32 bits",
            node=name,
            found=int(np.abs(weights).max()),
            allowed=f"<= {CONV_WEIGHT_MAX}",
        )
    _check_sums(name, "Conv", sums, CONV_SUM_BITS)


@_check_synapse.register
def _(synapse: DenseSynapse, name: str, sums: IntRange) -> None:
    widest = IntRange.signed(DENSE_WEIGHT_BITS)
    low, high = int(synapse.weight.min()), int(synapse.weight.max())
    if not widest.contains(low, high):
        raise TargetError(
            "stock Dense would clip these weights",
            node=name,
            found=f"{low} .. {high}",
            allowed=str(widest),
        )
    _check_sums(name, "Dense", sums, DENSE_SUM_BITS)


@_check_synapse.register
def _(synapse: WindowSynapse, name: str, sums: IntRange) -> None:
    """Accept the synapse: the pool is a process of this project."""


def _check_sums(name: str, process: str, sums: IntRange, bits: int) -> None:
    """Raise TargetError if sums may exceed `bits`; stock Lava cannot watch them in a run."""
    if not IntRange.signed(bits).contains(sums.low, sums.high):
        raise TargetError(
            f"stock {process} may wrap these sums silently",
            node=name,
            found=f"{sums} in the worst case",
            allowed=str(IntRange.signed(bits)),
            remedy="use fewer weight bits; the reference simulator watches the sums",
        )
