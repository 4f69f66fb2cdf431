"""The reference simulator: the semantic contract, step by step, in exact integers.

At local step t every population takes its sources' spikes of local step t; so the program runs
in topological order inside one loop over steps. Sums are computed in float64, which is exact
below 2^53; the bound is checked before the run. State is int64 and watched for leaving the
program's state range at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.errors import ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.neurons import Readout
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.spike_ranges import weight_sums
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse
from toolchain.recording import Mode, Recording, RecordingBuilder

BACKEND = "reference"
EXACT_FLOAT64 = 2**53
"""Integers up to here are exact in float64 (IEEE 754: 53 significant bits)."""
Progress = Callable[[int, int], None]


def simulate(
    program: IntProgram,
    inputs: np.ndarray,
    *,
    mode: Mode = Mode.FULL,
    labels: np.ndarray | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Recording:
    """Run `program` on graded input spikes `inputs`, int (N, ...).

    Raises
    ------
    ProgramError
        If the inputs do not fit the program.
    ValueRangeError
        If an input is out of range, or a sum or state leaves the program's state range.
    """
    program.check_inputs(inputs)
    _check_exact(program)
    builder = RecordingBuilder(program, mode)
    for start in range(0, len(inputs), batch):
        chunk = inputs[start : start + batch]
        spikes, membrane = _run_batch(program, torch.from_numpy(chunk.astype(np.int64)))
        builder.add(chunk, spikes, membrane)
        if progress:
            progress(min(start + batch, len(inputs)), len(inputs))
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    return builder.finish(BACKEND, labels, {"versions": versions})


def _check_exact(program: IntProgram) -> None:
    for population in program.populations:
        for synapse in population.synapses:
            positive, negative = weight_sums(synapse)
            spikes = program.spike_range(synapse.source)
            bound = int((positive - negative).max()) * max(abs(spikes.low), abs(spikes.high))
            if bound >= EXACT_FLOAT64:
                raise ValueRangeError(
                    "a sum may pass what float64 holds exactly",
                    node=population.name,
                    found=bound,
                    allowed=EXACT_FLOAT64,
                )


@singledispatch
def synaptic_current(synapse: Synapse, spikes: Tensor) -> Tensor:
    """Current int64 (N, ...) for spikes int64 (N, ...)."""
    raise ProgramError("no simulation for this synapse", found=type(synapse).__name__)


@synaptic_current.register
def _(synapse: ConvSynapse, spikes: Tensor) -> Tensor:
    weight = torch.from_numpy(synapse.weight.astype(np.float64))
    total = F.conv2d(
        spikes.double(),
        weight,
        None,
        synapse.stride,
        synapse.padding,
        synapse.dilation,
        synapse.groups,
    )
    return total.long() << synapse.weight_exponent


@synaptic_current.register
def _(synapse: DenseSynapse, spikes: Tensor) -> Tensor:
    weight = torch.from_numpy(synapse.weight.astype(np.float64))
    return F.linear(spikes.flatten(1).double(), weight).long() << synapse.weight_exponent


@torch.no_grad()
def _run_batch(
    program: IntProgram, inputs: Tensor
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spikes int8 and membrane potentials int32 of every population, (T, n, ...)."""
    steps, count = program.schedule.num_steps, len(inputs)
    spikes = {p.name: np.zeros((steps, count, *p.shape), np.int8) for p in program.spiking}
    membrane = {p.name: np.zeros((steps, count, *p.shape), np.int32) for p in program.populations}
    states = {p.name: _initial_state(p, count) for p in program.populations}
    limits = program.state_range
    for step in range(steps):
        awake = step < program.schedule.wake_steps
        sent = {INPUT: inputs if awake else torch.zeros_like(inputs)}
        for population in program.populations:
            current = sum(
                (synaptic_current(s, sent[s.source]) for s in population.synapses),
                start=torch.zeros(1, dtype=torch.int64),
            )
            _watch(population.name, "summed current", current, limits)
            if awake:
                current = current + _per_channel(population, population.bias)
            state, fired = _step(population, states[population.name], current, awake, limits)
            states[population.name] = state
            potential = state if fired is None else state.membrane_potential
            membrane[population.name][step] = potential.numpy()
            if fired is not None:
                spikes[population.name][step] = fired.numpy()
                sent[population.name] = fired
    return spikes, membrane


def _per_channel(population: Population, values: np.ndarray) -> Tensor:
    return torch.from_numpy(population.per_channel(values).astype(np.int64))


def _initial_state(population: Population, count: int) -> Any:
    zeros = torch.zeros((count, *population.shape), dtype=torch.int64)
    neuron = population.neuron
    if isinstance(neuron, Readout):
        return zeros
    return neuron.start(zeros + _per_channel(population, neuron.initial_potential), zeros)


def _step(
    population: Population, state: Any, current: Tensor, awake: bool, limits: IntRange
) -> tuple[Any, Tensor | None]:
    neuron = population.neuron
    if isinstance(neuron, Readout):
        accumulator = neuron.step(state, current)
        _watch(population.name, "accumulator", accumulator, limits)
        return accumulator, None
    _watch(population.name, "membrane potential", state.membrane_potential + current, limits)
    return neuron.step(state, current, _per_channel(population, neuron.threshold), awake)


def _watch(name: str, what: str, values: Tensor, limits: IntRange) -> None:
    low, high = int(values.min()), int(values.max())
    if not limits.contains(low, high):
        raise ValueRangeError(
            f"the {what} left its range during the run",
            node=name,
            found=f"{low} .. {high}",
            allowed=str(limits),
            remedy="use fewer weight bits or steps",
        )
