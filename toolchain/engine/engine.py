"""Simulation block by block: every layer over all steps of a block, then the next block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch

from toolchain.engine.device_layers import DeviceLayer, DeviceResult, DeviceSpikes
from toolchain.engine.layers import EngineLayer, LayerResult, StepContext, make_layer
from toolchain.engine.memory_plan import samples_and_steps
from toolchain.engine.spike_encoding import CodedSpikes, channels_first
from toolchain.program.bounds import analyse
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synops import dense_operations
from toolchain.recording import LayerRecorder
from toolchain.simulator.currents import settle_threads
from toolchain.threads import share


class Detail(Enum):
    """Content of a simulated block."""

    READOUT = "readout"
    SPIKES = "spikes"
    TRACE = "trace"
    """Only the readout, but listeners get the membrane potential of every step."""
    EVERYTHING = "everything"


@dataclass(frozen=True)
class SimulatedBlock:
    """Consecutive local steps of one pass of n samples, all wake steps or all sleep steps.

    Attributes
    ----------
    first:
        Number of local steps before the block.
    steps:
        Number of steps in the block.
    outputs:
        Accumulator after each step by readout, int (T, n, K) or (T, n, C, H, W).
    spikes:
        Spikes by spiking population, int8 (T, n, C, H, W) or (T, n, F); empty with
        `Detail.READOUT`.
    membrane:
        Membrane potential after each step by population, int32, with `Detail.EVERYTHING`; else
        empty.
    """

    first: int
    steps: int
    awake: bool
    outputs: dict[str, np.ndarray]
    spikes: dict[str, np.ndarray]
    membrane: dict[str, np.ndarray]

    @property
    def readout(self) -> np.ndarray:
        """The only output of a classifier, int (T, n, K)."""
        (output,) = self.outputs.values()
        return output

    @property
    def active_steps(self) -> int:
        """Number of steps up to the last with a spike, from the stored `spikes`.

        On sleep steps, nothing fires after a step without any spike.
        """
        for step in range(self.steps, 0, -1):
            if any(bool(spikes[step - 1].any()) for spikes in self.spikes.values()):
                return step
        return 0


WORTH_THREADS = 1 << 32
"""Multiply-adds of the steps of a pass, if no spike is missing, that are worth several threads.

With fewer, as those of a small image, threads wait for each other and read the same weights.
"""
AnyResult = LayerResult | DeviceResult
Listener = Callable[[Population, int, AnyResult], None]


def _feed(recorder: LayerRecorder, first: int, result: AnyResult, shape: tuple[int, ...]) -> None:
    """Feed a block to a recorder step by step, as (n, H, W, C) or (n, F)."""
    flat = len(shape) == 1
    spikes = None if result.sent is None else result.sent.as_int8()
    steps = len(result.trace) if spikes is None else len(spikes)
    for step in range(steps):
        membrane = None
        if len(result.trace):
            membrane = result.trace[step]
        elif step == steps - 1:
            membrane = result.potential
        if membrane is not None:
            membrane = membrane.astype(np.int32, copy=False)
            membrane = membrane[:, 0, 0] if flat else membrane
        sent = None if spikes is None else spikes[step]
        recorder.step(
            first + step + 1, sent[:, 0, 0] if flat and sent is not None else sent, membrane
        )


class Engine:
    """A program prepared to run; one engine serves many passes.

    Parameters
    ----------
    block:
        Most steps per block; by default the wake steps, or fewer of long inputs per step.
    memory:
        Memory of a pass, in bytes; None for the fastest choice.
    traced:
        Whether passes store the potential of every step; counts in `memory`.
    device:
        GPU on which layers run as tensors; None for compiled loops on the CPU.

    Attributes
    ----------
    samples:
        Number of samples per pass.

    Raises
    ------
    ProgramError, ValueRangeError
        If the engine cannot run the program exactly.
    TargetError
        If one sample needs more than `memory`.
    BackendRunError
        If torch fails at a synapse in every arithmetic.
    """

    def __init__(
        self,
        program: IntProgram,
        *,
        block: int | None = None,
        memory: int | None = None,
        traced: bool = False,
        device: torch.device | None = None,
    ) -> None:
        settle_threads()
        self._program = program
        self._device = device
        self.samples, self._block = samples_and_steps(program, block, memory=memory, traced=traced)
        bounds = zip(program.populations, analyse(program), strict=True)
        self._layers: Sequence[EngineLayer | DeviceLayer]
        if device is None:
            self._layers = [make_layer(program, *of_one) for of_one in bounds]
        else:
            self._layers = [DeviceLayer(program, *of_one, device) for of_one in bounds]
        self._operations = dense_operations(program)
        self._last_use = {
            synapse.source: population.name
            for population in program.populations
            for synapse in population.synapses
        }

    def passes(
        self, inputs: np.ndarray, keep: Detail = Detail.READOUT
    ) -> Iterator[tuple[slice, Iterator[SimulatedBlock]]]:
        """Run graded spikes, int (N, *sample_shape): yields samples of each pass and its blocks.

        Raises
        ------
        ProgramError, ValueRangeError
            See `run`.
        """
        for start in range(0, len(inputs), self.samples):
            where = slice(start, min(start + self.samples, len(inputs)))
            yield where, self.run(inputs[where], keep)

    def run(
        self, inputs: np.ndarray, keep: Detail = Detail.READOUT, listen: Listener | None = None
    ) -> Iterator[SimulatedBlock]:
        """Run graded spikes, int (n, *sample_shape), as one pass.

        Parameters
        ----------
        listen:
            Called with each population, the number of steps before the block, and its result.

        Raises
        ------
        ProgramError
            If the inputs do not fit the program.
        ValueRangeError
            If an input is out of range, or a sum or state leaves the program's state range.
        BackendRunError
            If torch fails at a synapse in every arithmetic, or a device's sums are not exact.
        """
        settle_threads()
        program, schedule = self._program, self._program.schedule
        program.check_inputs(inputs)
        graded: CodedSpikes | DeviceSpikes | None = None
        states = {layer.population.name: layer.start(len(inputs)) for layer in self._layers}
        first = 0
        while first < schedule.num_steps:
            awake = first < schedule.wake_steps
            end = schedule.wake_steps if awake else schedule.num_steps
            steps = min(self._block, end - first)
            wakes = min(first, schedule.wake_steps)
            traced = keep in (Detail.TRACE, Detail.EVERYTHING)
            kept = listen is not None or first + steps < schedule.num_steps
            moment = StepContext(steps, wakes, awake, traced, kept)
            if awake and (graded is None or program.input.per_step):
                graded = self._graded(program.awake_inputs(inputs, first, steps))
            sent = {INPUT: graded} if awake else {}
            one = partial(self._one, states, sent, moment, first, keep)
            work = self._operations * steps * len(inputs)
            alone = self._device is None and work < WORTH_THREADS
            yield share(one, [listen], torch_works=alone)[0]
            first += steps

    def record(self, inputs: np.ndarray, recorders: Mapping[str, LayerRecorder]) -> None:
        """Run graded spikes, int (n, *sample_shape), as one pass, and feed each step to recorders.

        Raises
        ------
        ProgramError, ValueRangeError
            See `run`.
        """
        traced = any(recorder.traces for recorder in recorders.values())

        def feed(population: Population, first: int, result: AnyResult) -> None:
            _feed(recorders[population.name], first, result, population.shape)

        for _ in self.run(inputs, Detail.TRACE if traced else Detail.READOUT, feed):
            pass

    def _graded(self, inputs: np.ndarray) -> CodedSpikes | DeviceSpikes:
        """Graded spikes of some wake steps, int (T, n, ...), as the layers take them."""
        if self._device is None:
            return CodedSpikes.of_input(inputs, self._program.spike_range(INPUT))
        return DeviceSpikes.of_input(inputs, self._device)

    @torch.no_grad()
    def _one(
        self,
        states: dict[str, Any],
        sent: dict[str, Any],
        moment: StepContext,
        first: int,
        keep: Detail,
        listen: Listener | None,
    ) -> SimulatedBlock:
        """A block of steps through all layers."""
        outputs: dict[str, np.ndarray] = {}
        spikes: dict[str, np.ndarray] = {}
        membrane: dict[str, np.ndarray] = {}
        for layer in self._layers:
            population = layer.population
            result = layer.run(states[population.name], sent, moment)
            if listen:
                listen(population, first, result)
            if keep is Detail.EVERYTHING:
                trace = channels_first(result.trace, population.shape)
                membrane[population.name] = trace.astype(np.int32)
            if result.sent is None:
                outputs[population.name] = channels_first(result.trace, population.shape)
                continue
            if not (isinstance(result, LayerResult) and result.quiet):
                sent[population.name] = result.sent
            if keep in (Detail.SPIKES, Detail.EVERYTHING):
                spikes[population.name] = result.sent.spikes()
            self._forget(sent, population.name)
        return SimulatedBlock(first, moment.steps, moment.awake, outputs, spikes, membrane)

    def _forget(self, sent: dict[str, Any], done: str) -> None:
        """Free the spikes that no later layer takes."""
        for source in [s for s in sent if self._last_use.get(s) == done]:
            del sent[source]
