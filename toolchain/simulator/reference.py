"""The reference simulator: the semantic contract, step by step, in exact integers.

At local step t every population takes its sources' spikes of local step t. So the program runs
in topological order inside one loop over steps. Sums are exact (see `currents`); state is int64
and must stay in the program's state range at every step. Recorded as membrane
potential are, for a LIPool, the largest count of its window, and for a relay 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.int_range import IntRange
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.progress import Progress
from toolchain.recording import LayerRecorder, Mode, Recording, build, make_recorders
from toolchain.recording.layer_recorder import channels_last
from toolchain.simulator.currents import ExactCurrent, per_channel, settle_threads
from toolchain.simulator.watch import watch

BACKEND = "reference"


def simulate(
    program: IntProgram,
    inputs: np.ndarray,
    *,
    mode: Mode = Mode.FULL,
    labels: np.ndarray | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Recording:
    """Run `program` on graded input spikes `inputs`, int (N, *sample_shape).

    Raises
    ------
    ProgramError
        If the inputs do not fit the program.
    ValueRangeError
        If an input is out of range, or a sum or state leaves the program's state range.
    BackendRunError
        If torch fails even in float64.
    """
    program.check_inputs(inputs)
    currents = _currents(program)
    recorders = make_recorders(program, mode)
    for start in range(0, len(inputs), batch):
        _record_batch(program, currents, inputs[start : start + batch], recorders)
        if progress:
            progress(min(start + batch, len(inputs)), len(inputs))
    records = {name: recorder.finish() for name, recorder in recorders.items()}
    return build(program, mode, inputs, records, labels, made_by())


def made_by() -> dict[str, Any]:
    """What a recording says of this backend."""
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return {"backend": BACKEND, "versions": versions}


Currents = dict[str, list[ExactCurrent]]


def _currents(program: IntProgram) -> Currents:
    """The currents of each population, one per synapse."""
    return {
        p.name: [ExactCurrent(p.name, s, program.spike_range(s.source)) for s in p.synapses]
        for p in program.populations
    }


@dataclass(frozen=True)
class StepResult:
    """The result of one local step.

    Attributes
    ----------
    spikes:
        Spikes by spiking population, int64 (N, ...).
    membrane:
        Membrane potential after firing by population, readouts included, int64 (N, ...).
    reach:
        Lowest and highest summed current, and state before firing, by population.
    """

    awake: bool
    spikes: dict[str, Tensor]
    membrane: dict[str, Tensor]
    reach: dict[str, tuple[int, int, int, int]]

    @property
    def silent(self) -> bool:
        """Whether no neuron of any sample fired; on sleep steps, none fires after that."""
        return not any(bool(spikes.any()) for spikes in self.spikes.values())


@torch.no_grad()
def run_steps(program: IntProgram, inputs: np.ndarray) -> Iterator[StepResult]:
    """Run one batch of graded spikes, int (N, *sample_shape), step by step, without a recording.

    Raises
    ------
    ProgramError, ValueRangeError
        See `simulate`.
    """
    program.check_inputs(inputs)
    yield from _steps(program, _currents(program), inputs)


def _steps(program: IntProgram, currents: Currents, inputs: np.ndarray) -> Iterator[StepResult]:
    settle_threads()
    per_channels = {p.name: partial(per_channel, p) for p in program.populations}
    states = {
        p.name: p.neuron.begin(
            torch.zeros((len(inputs), *p.shape), dtype=torch.int64), per_channels[p.name]
        )
        for p in program.populations
    }
    limits = program.state_range
    for step, graded in enumerate(_graded(program, inputs)):
        awake = step < program.schedule.wake_steps
        sent = {INPUT: graded}
        spikes: dict[str, Tensor] = {}
        membrane: dict[str, Tensor] = {}
        reach: dict[str, tuple[int, int, int, int]] = {}
        for population in program.populations:
            name = population.name
            current = sum(
                (
                    exact(sent[synapse.source])
                    for synapse, exact in zip(population.synapses, currents[name], strict=True)
                ),
                start=torch.zeros(1, dtype=torch.int64),
            )
            summed = _watch(name, "summed current", current, limits)
            if awake and population.bias.any():
                current = current + per_channel(population, population.bias)
            neuron = population.neuron
            made = neuron.advance(states[name], current, awake, per_channels[name])
            state = _watch(name, neuron.watched, made.watched, neuron.watch_limits(limits))
            reach[name] = (*summed, *state)
            states[name], membrane[name] = made.state, made.potential
            if made.spikes is not None:
                spikes[name] = sent[name] = made.spikes
        yield StepResult(awake, spikes, membrane, reach)


def _graded(program: IntProgram, inputs: np.ndarray) -> Iterator[Tensor]:
    """Graded spikes of each local step, int64 (n, ...)."""
    wake = program.schedule.wake_steps
    for step in range(program.schedule.num_steps):
        if step == 0 or (program.input.per_step and step < wake):
            (now,) = program.awake_inputs(inputs, step, 1)
            graded = torch.from_numpy(now.astype(np.int64))
        elif step == wake:
            graded = torch.zeros_like(graded)
        yield graded


def _watch(name: str, what: str, values: Tensor, limits: IntRange) -> tuple[int, int]:
    """The extremes of `values`, which must be within the limits."""
    low, high = int(values.min()), int(values.max())
    watch(name, what, low, high, limits)
    return low, high


@torch.no_grad()
def _record_batch(
    program: IntProgram,
    currents: Currents,
    inputs: np.ndarray,
    recorders: dict[str, LayerRecorder],
) -> None:
    for step, result in enumerate(_steps(program, currents, inputs), 1):
        for name, potential in result.membrane.items():
            fired = result.spikes.get(name)
            spikes = None if fired is None else channels_last(fired.numpy().astype(np.int8))
            membrane = channels_last(potential.numpy().astype(np.int32))
            recorders[name].step(step, spikes, membrane)
