"""A program run block by block: every layer over all steps of a block, then the next block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

import numpy as np
import torch

from toolchain.program.bounds import analyse
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.simulator.engine.coded import CodedSpikes, channels_first
from toolchain.simulator.engine.layers import Layer, Moment, make_layer

WORKING_SET = 4 << 20
"""Bytes that the largest layer's currents of a pass may take (they are float32)."""
LARGEST_PASS = 512
"""Samples a pass, at most."""


class Keep(Enum):
    """What a block holds when it is handed out."""

    READOUT = "readout"
    SPIKES = "spikes"
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Block:
    """Consecutive local steps of one pass of n samples, all awake or all asleep.

    Attributes
    ----------
    first:
        Local step before it, from 0.
    steps:
        How many.
    readout:
        Accumulator after each step, int (T, n, K).
    spikes:
        By spiking population, int8 (T, n, C, H, W) or (T, n, F); empty with `Keep.READOUT`.
    membrane:
        By population after each step, int32, with `Keep.EVERYTHING`; else empty.
    """

    first: int
    steps: int
    awake: bool
    readout: np.ndarray
    spikes: dict[str, np.ndarray]
    membrane: dict[str, np.ndarray]

    @property
    def active_steps(self) -> int:
        """Steps up to the last in which a neuron fired, by the kept `spikes`.

        Asleep, nothing fires after a step without any spike.
        """
        for step in range(self.steps, 0, -1):
            if any(bool(spikes[step - 1].any()) for spikes in self.spikes.values()):
                return step
        return 0


class Engine:
    """A program made ready to run; use one for many passes.

    Parameters
    ----------
    block:
        Steps a block has at most; by default the wake steps.

    Raises
    ------
    ProgramError, ValueRangeError
        If the program holds what the engine cannot run exactly.
    """

    def __init__(self, program: IntProgram, *, block: int | None = None) -> None:
        self._program = program
        self._block = min(block or program.schedule.wake_steps, program.schedule.num_steps)
        self._layers: list[Layer] = [
            make_layer(program, population, bound)
            for population, bound in zip(program.populations, analyse(program), strict=True)
        ]
        self._last_use = {
            synapse.source: population.name
            for population in program.populations
            for synapse in population.synapses
        }

    @property
    def samples(self) -> int:
        """Samples of a pass that stays in the cache."""
        largest = max(prod(p.shape) for p in self._program.populations)
        return max(1, min(LARGEST_PASS, WORKING_SET // (4 * largest * self._block)))

    def passes(
        self, inputs: np.ndarray, keep: Keep = Keep.READOUT
    ) -> Iterator[tuple[slice, Iterator[Block]]]:
        """Run graded spikes, int (N, ...): samples of a pass, and its blocks, pass by pass.

        Raises
        ------
        ProgramError, ValueRangeError
            As `run`.
        """
        for start in range(0, len(inputs), self.samples):
            where = slice(start, min(start + self.samples, len(inputs)))
            yield where, self.run(inputs[where], keep)

    def run(self, inputs: np.ndarray, keep: Keep = Keep.READOUT) -> Iterator[Block]:
        """Run graded spikes, int (n, ...), as one pass.

        Raises
        ------
        ProgramError
            If the inputs do not fit the program.
        ValueRangeError
            If an input is out of range, or a sum or state leaves the program's state range.
        """
        program, schedule = self._program, self._program.schedule
        program.check_inputs(inputs)
        graded = CodedSpikes.of_input(inputs, program.spike_range(INPUT))
        states = {layer.population.name: layer.start(len(inputs)) for layer in self._layers}
        first = 0
        while first < schedule.num_steps:
            awake = first < schedule.wake_steps
            end = schedule.wake_steps if awake else schedule.num_steps
            steps = min(self._block, end - first)
            wakes = min(first, schedule.wake_steps)
            moment = Moment(steps, wakes, awake, traced=keep is Keep.EVERYTHING)
            sent = {INPUT: graded} if awake else {}
            with torch.no_grad():
                block = self._one(states, sent, moment, first, keep)
            yield block
            first += steps

    def _one(
        self,
        states: dict[str, Any],
        sent: dict[str, CodedSpikes],
        moment: Moment,
        first: int,
        keep: Keep,
    ) -> Block:
        spikes: dict[str, np.ndarray] = {}
        membrane: dict[str, np.ndarray] = {}
        for layer in self._layers:
            population = layer.population
            result = layer.run(states[population.name], sent, moment)
            if keep is Keep.EVERYTHING:
                trace = channels_first(result.trace, population.shape)
                membrane[population.name] = trace.astype(np.int32)
            if result.sent is None:
                continue
            sent[population.name] = result.sent
            if keep is not Keep.READOUT:
                spikes[population.name] = result.sent.spikes()
            self._forget(sent, population.name)
        readout = channels_first(result.trace, self._program.readout.shape)
        return Block(first, moment.steps, moment.awake, readout, spikes, membrane)

    def _forget(self, sent: dict[str, CodedSpikes], done: str) -> None:
        """Let go of spikes that no later layer takes."""
        for source in [s for s in sent if self._last_use.get(s) == done]:
            del sent[source]
