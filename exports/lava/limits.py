"""What stock Lava synapses can hold; checked before anything is started."""

from __future__ import annotations

from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse
from toolchain.program.int_program import IntProgram
from toolchain.program.synapse import ConvSynapse, DenseSynapse

MAX_GROUPS = 127
"""Stock Conv keeps groups as int8 and silently gives zeros from 128 on (lava-nc 0.10.0)."""
MAX_GEOMETRY = 127
"""Stock Conv keeps kernel size, stride, padding and dilation as int8 (lava-nc 0.10.0)."""
DENSE_WEIGHT_BITS = 8
"""Stock Dense clips to 8 bits; of both signs it holds even numbers -256..254 (lava-nc 0.10.0)."""
DENSE_SUM_BITS = 30
"""Stock Dense sums in int32, without a check, and here twice the weights (see `network.py`)."""
CONV_SUM_BITS = 24
"""Stock Conv's output wraps modulo 24 bits (lava-nc 0.10.0, `signed_clamp`)."""


def check_runnable(program: IntProgram) -> None:
    """Raise TargetError, naming the population, where stock Lava would compute something else."""
    depths = program.depths()
    sums = {bound.name: bound.current for bound in analyse(program)}
    for population in program.populations:
        for synapse in population.synapses:
            if depths[synapse.source] + 1 != depths[population.name]:
                raise TargetError(
                    "branches of unequal depth need delays, which this version does not place",
                    node=population.name,
                    found=f"a synapse from {synapse.source}",
                )
            if isinstance(synapse, ConvSynapse):
                _check_conv(population.name, synapse)
                _check_sums(population.name, "Conv", sums[population.name], CONV_SUM_BITS)
            else:
                _check_dense(population.name, synapse)
                _check_sums(population.name, "Dense", sums[population.name], DENSE_SUM_BITS)


def _check_sums(name: str, process: str, sums: IntRange, bits: int) -> None:
    """Sums are proved small unless the user chose to watch instead; stock Lava cannot watch."""
    if not IntRange.signed(bits).contains(sums.low, sums.high):
        raise TargetError(
            f"stock {process} may wrap these sums without a word",
            node=name,
            found=f"{sums} in the worst case",
            allowed=str(IntRange.signed(bits)),
            remedy="use fewer weight bits; the reference simulator watches the sums",
        )


def _check_dense(name: str, synapse: DenseSynapse) -> None:
    widest = IntRange.signed(DENSE_WEIGHT_BITS)
    low, high = int(synapse.weight.min()), int(synapse.weight.max())
    if not widest.contains(low, high):
        raise TargetError(
            "stock Dense would clip these weights",
            node=name,
            found=f"{low} .. {high}",
            allowed=str(widest),
        )


def _check_conv(name: str, synapse: ConvSynapse) -> None:
    largest = max(*synapse.weight.shape[2:], *synapse.stride, *synapse.padding, *synapse.dilation)
    if synapse.groups > MAX_GROUPS or largest > MAX_GEOMETRY:
        raise TargetError(
            "stock Conv keeps this in 8 bits and would compute something else",
            node=name,
            found=f"groups {synapse.groups}, largest geometry value {largest}",
            allowed=f"<= {MAX_GROUPS}",
            remedy="run it on the reference simulator, or use fewer groups",
        )
