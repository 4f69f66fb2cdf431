"""Layers on a GPU: the neurons' steps on tensors that stay on the device over a block.

Tensors are (T, n, H, W, C) or (n, H, W, C). The results of a block are copied to the CPU when they
are read. The extremes of each step stay on the device and are checked once per block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from toolchain.engine.device_sums import INT32, DeviceSum
from toolchain.engine.layers import StepContext
from toolchain.engine.neuron_layout import Reach
from toolchain.engine.spike_encoding import channels_first, channels_last, plane_of
from toolchain.errors import BackendRunError, TargetError
from toolchain.program.bounds import PopulationBounds
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import Readout, Relay
from toolchain.program.neurons.base import Step
from toolchain.program.neurons.lipool import PoolState
from toolchain.program.synapse import WindowSynapse
from toolchain.simulator.planes import seen
from toolchain.simulator.watch import watch


def open_device(name: str) -> torch.device:
    """The torch device called `name`, such as cuda or cuda:1.

    Raises
    ------
    TargetError
        If the name is neither that of the CPU nor of a CUDA device.
    BackendRunError
        If the device is missing or cannot compute.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise TargetError("no such device", node=name, allowed="cuda, cuda:1, ...")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BackendRunError(
            "this device cannot be used",
            node=name,
            found=str(error).splitlines()[0],
            remedy="a torch build for it, and its driver; or leave out device=",
        ) from error
    return device


@dataclass(frozen=True)
class DeviceSpikes:
    """Spikes of one layer, on a device.

    Attributes
    ----------
    values:
        Integers (T, n, H, W, C); T is 1 if all steps are equal.
    shape:
        (C, H, W) or (F,) of the layer.
    """

    values: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of_input(cls, inputs: np.ndarray, device: torch.device) -> DeviceSpikes:
        """Graded input spikes of some wake steps, int (T, n, ...); T is 1 if all are equal."""
        laid_out = torch.from_numpy(channels_last(inputs).astype(np.int32))
        return cls(laid_out.to(device), inputs.shape[2:])

    def as_int8(self) -> np.ndarray:
        """The spikes as int8 (T, n, H, W, C)."""
        return self.values.to(torch.int8).cpu().numpy()

    def spikes(self) -> np.ndarray:
        """The spikes as int8 (T, n, C, H, W) or (T, n, F)."""
        return channels_first(self.as_int8(), self.shape)


@dataclass(frozen=True)
class DeviceResult:
    """Result of a layer in a block, with the names of `layers.LayerResult`, copied when read."""

    sent: DeviceSpikes | None
    last: Tensor
    steps: Tensor
    reach: Reach

    @cached_property
    def potential(self) -> np.ndarray:
        """Membrane potential at the end of the block, int (n, H, W, C)."""
        return self.last.cpu().numpy()

    @cached_property
    def trace(self) -> np.ndarray:
        """Membrane potential after each step, int (T, n, H, W, C); empty if not requested."""
        return self.steps.cpu().numpy()


@dataclass
class _Held:
    """State of a layer for a number of samples, replaced in every step."""

    samples: int
    state: Any


class DeviceLayer:
    """A population prepared to run on a device.

    Raises
    ------
    ProgramError
        If its neuron is unknown.
    ValueRangeError
        If a sum could exceed the exact range of float64.
    """

    def __init__(
        self,
        program: IntProgram,
        population: Population,
        bound: PopulationBounds,
        device: torch.device,
    ) -> None:
        self.population = population
        self.device = device
        self.plane = plane_of(population.shape)
        self._limits = program.state_range
        reach = (bound.current.low, bound.current.high, bound.state.low, bound.state.high)
        self.integer = torch.int32 if INT32.contains(min(reach), max(reach)) else torch.int64
        self._state_limits = population.neuron.watch_limits(program.state_range)
        self._bias = self._tensor(population.bias)
        arrays = population.neuron.arrays().values()
        self._parameters = {id(values): self._tensor(values) for values in arrays}
        self.window: WindowSynapse | None = None
        self.source_plane = self.plane
        self._sums = []
        for synapse in population.synapses:
            source = program.source_shape(synapse.source)
            if isinstance(synapse, WindowSynapse):
                self.window, self.source_plane = synapse, plane_of(source)
                continue
            spikes = program.spike_range(synapse.source)
            total = DeviceSum(population.name, synapse, source, spikes, device)
            self._sums.append((synapse.source, total))

    def _tensor(self, values: np.ndarray) -> Tensor:
        """Integers as a tensor on the device."""
        return torch.from_numpy(np.array(values)).to(self.device, self.integer)

    def _zeros(self, samples: int, plane: tuple[int, int, int]) -> Tensor:
        """Zeros (n, H, W, C)."""
        return torch.zeros((samples, *plane), dtype=self.integer, device=self.device)

    def _per_channel(self, values: np.ndarray) -> Tensor:
        """A parameter of the neuron, (C,), as a tensor; channels are last here."""
        return self._parameters[id(values)]

    def start(self, samples: int) -> _Held:
        """State of `samples` samples before local step 1; a pool counts its source's spikes."""
        state = self.population.neuron.begin(self._zeros(samples, self.plane), self._per_channel)
        if self.window is not None:
            state = state._replace(counts=self._zeros(samples, self.source_plane))
        return _Held(samples, state)

    def run(
        self, held: _Held, sent: Mapping[str, DeviceSpikes], moment: StepContext
    ) -> DeviceResult:
        """Advance the state by a block of steps.

        Raises
        ------
        ValueRangeError
            If a sum or the state leaves its range.
        """
        neuron = self.population.neuron
        current = self._current(sent)
        extremes = [self._extremes(current)]
        traced = moment.traced or isinstance(neuron, Readout)
        fired, trace, last = [], [], None
        for t in range(moment.steps):
            if len(current):
                now = current[t if len(current) > 1 else 0]
            else:
                now = self._zeros(held.samples, self.plane)
            step = self._step(held.state, now, moment.awake)
            held.state, last = step.state, step.potential
            extremes.append(torch.stack(torch.aminmax(step.watched)).long())
            if step.spikes is not None:
                fired.append(step.spikes.to(torch.int8))
            if traced:
                trace.append(step.potential)
        assert last is not None
        reach = self._watch(torch.stack(extremes).tolist())
        empty = torch.empty((0, *last.shape), dtype=last.dtype, device=self.device)
        spikes = DeviceSpikes(torch.stack(fired), self.population.shape) if fired else None
        return DeviceResult(spikes, last, torch.stack(trace) if trace else empty, reach)

    def _step(self, state: Any, current: Tensor, awake: bool) -> Step:
        if self.window is not None:
            return self._pool(state, current, self.window)
        if awake:
            current = current + self._bias
        step = self.population.neuron.advance(state, current, awake, self._per_channel)
        return step._replace(state=_cast(step.state, self.integer))

    def _pool(self, state: PoolState, arriving: Tensor, s: WindowSynapse) -> Step:
        """A step of a LIPool on whole planes: each count is stored once, not once per window."""
        counts = state.counts + arriving
        padded = seen(s, counts.double().permute(0, 3, 1, 2))
        largest = F.max_pool2d(padded, s.kernel, s.stride, 0, s.dilation)
        now = largest.permute(0, 2, 3, 1).to(self.integer)
        return Step(PoolState(counts, now), now, now - state.maximum, counts)

    def _current(self, sent: Mapping[str, DeviceSpikes]) -> Tensor:
        """Current (T or 1, n, H, W, C) of all synapses, or a pool's input; (0,) without spikes."""
        if self.window is not None:
            return sent[self.window.source].values.to(self.integer)
        summed: Tensor | None = None
        for source, total in self._sums:
            if source not in sent:
                continue
            values = sent[source].values
            of_one = total(values.flatten(0, 1)).to(self.integer) << total.shift
            of_one = of_one.reshape(*values.shape[:2], *self.plane)
            summed = of_one if summed is None else summed + of_one
        if summed is None:
            return torch.zeros(0, dtype=self.integer, device=self.device)
        return summed

    def _extremes(self, current: Tensor) -> Tensor:
        """Lowest and highest value, int64 (2,)."""
        if not current.numel():
            return torch.zeros(2, dtype=torch.int64, device=self.device)
        return torch.stack(torch.aminmax(current)).long()

    def _watch(self, extremes: list[list[int]]) -> Reach:
        (low, high), *states = extremes
        name = self.population.name
        watch(name, "summed current", low, high, self._limits)
        lowest, highest = min(s[0] for s in states), max(s[1] for s in states)
        watch(name, self.population.neuron.watched, lowest, highest, self._state_limits)
        kept = (0, 0) if isinstance(self.population.neuron, Relay) else (lowest, highest)
        return low, high, *kept


def _cast(state: Any, integer: torch.dtype) -> Any:
    """A state with tensors of the layer's type, since products with spikes have a wider type."""
    if isinstance(state, Tensor):
        return state.to(integer)
    return type(state)(*(v.to(integer) if isinstance(v, Tensor) else v for v in state))
