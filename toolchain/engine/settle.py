"""Number of sleep steps that a CIF program needs until no neuron can fire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from toolchain.engine.engine import Detail, Engine, SimulatedBlock
from toolchain.errors import ConversionError
from toolchain.program.bounds import PopulationBounds, analyse, prove
from toolchain.program.int_program import IntProgram, Schedule

MAX_SLEEP_FACTOR = 16
"""Longest sleep tried, in multiples of the wake steps; CASC's scripts use 7 (Q = 8, S = 56)."""


def settle_time(program: IntProgram, inputs: np.ndarray) -> int:
    """Smallest number of sleep steps after which all `inputs`, int (N, *sample_shape), settled.

    A sleep step in which no neuron of any layer fires changes nothing, so no neuron fires after
    it either; the time is that of the last step with a spike.

    Raises
    ------
    ConversionError
        If a sample has not settled within `MAX_SLEEP_FACTOR` times the wake steps.
    """
    wake = program.schedule.wake_steps
    longest = replace(program, schedule=Schedule(wake, MAX_SLEEP_FACTOR * wake))
    engine = Engine(longest)
    return max(_settle_time(program.name, run) for _, run in engine.passes(inputs, Detail.SPIKES))


def _settle_time(name: str, blocks: Iterator[SimulatedBlock]) -> int:
    asleep = firing = 0
    for block in blocks:
        if block.awake:
            continue
        asleep += block.active_steps
        if block.active_steps < block.steps:
            return asleep
        firing = sum(int(np.count_nonzero(spikes[-1])) for spikes in block.spikes.values())
    raise ConversionError(
        "the network does not settle",
        node=name,
        found=f"{firing} neurons still fire after {asleep} sleep steps",
        remedy="it may need more; give sleep_steps= yourself",
    )


@dataclass(frozen=True, eq=False)
class Settled:
    """A CIF program with measured sleep steps.

    Attributes
    ----------
    program:
        The program with the new schedule.
    bounds:
        Its ranges, proved again (or only analysed, if runs watch them).
    measured:
        Sleep steps that the samples needed.
    """

    program: IntProgram
    bounds: tuple[PopulationBounds, ...]
    measured: int


def with_measured_sleep(program: IntProgram, inputs: np.ndarray, *, factor: int = 1) -> Settled:
    """`program` with `factor` times the sleep steps that `inputs`, int (N, *sample_shape), need.

    A factor above 1 leaves room for samples that need longer than these.

    Raises
    ------
    ConversionError
        If a sample does not settle.
    UnprovedRangeError
        If ranges cannot be proved for the new schedule.
    """
    measured = settle_time(program, inputs)
    schedule = Schedule(program.schedule.wake_steps, factor * measured)
    settled = replace(program, schedule=schedule)
    bounds = analyse(settled) if settled.watch_ranges else prove(settled)
    return Settled(settled, bounds, measured)
