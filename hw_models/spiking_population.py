"""The common part of spiking Lava processes: ports, variables, local time and the recorder.

This file is outside the folder of processes, because Lava executes every file there when it looks
for models. Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from hw_models.local_time import LocalTime
from hw_models.recorder import Recorder
from hw_models.state_guard import StateGuard


class SpikingPopulation(AbstractProcess):
    """A population with a threshold, an initial potential and a bias per channel.

    Parameters
    ----------
    shape:
        (W, H, C) or (F,): channels last, so that per-channel values broadcast.
    threshold, initial_potential, bias:
        Integers, (C,); the bias is added on wake steps only.
    clock:
        Local time of the layer.
    state_bits:
        Signed width of the membrane potential; exceeding it is an error.
    recorder:
        Takes the spikes and membrane potentials; None for no recording.
    parameters:
        Further parameters of a subclass's model.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        threshold: np.ndarray,
        initial_potential: np.ndarray,
        bias: np.ndarray,
        clock: LocalTime,
        state_bits: int = 24,
        recorder: Recorder | None = None,
        name: str | None = None,
        **parameters: Any,
    ) -> None:
        how = {"clock": clock, "state_bits": state_bits, "recorder": recorder, "name": name}
        super().__init__(shape=shape, **how, **parameters)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        channels = (shape[-1],)
        self.threshold = Var(shape=channels, init=threshold)
        self.initial_potential = Var(shape=channels, init=initial_potential)
        self.bias = Var(shape=channels, init=bias)
        self.v = Var(shape=shape, init=0)


class SpikingPopulationModel(PyLoihiProcessModel):
    """Base class of the CPU models, in int32; a subclass defines how neurons fire."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    threshold: np.ndarray = LavaPyType(np.ndarray, np.int32)
    initial_potential: np.ndarray = LavaPyType(np.ndarray, np.int32)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.recorder: Recorder | None = proc_params["recorder"]
        self.guard = StateGuard(proc_params["state_bits"], proc_params["name"])

    def start_sample(self) -> None:
        """Reset the state before local step 1."""
        self.v[...] = self.initial_potential

    def fire(self, spikes: np.ndarray, local_step: int) -> None:
        """Write the spikes of this step into `spikes`, initially 0, and reduce `v` by them."""
        raise TypeError(f"{type(self).__name__} does not say how it fires")

    def run_spk(self) -> None:
        """One global step: add current and bias, check the register, fire, send the spikes."""
        current = self.a_in.recv()
        spikes = np.zeros(self.v.shape, np.int32)
        now = self.clock.at(self.time_step)
        if now is not None:
            local_step = now[1]
            if local_step == 1:
                self.start_sample()
            self.v += current
            if self.clock.awake(local_step):
                self.v += self.bias
            self.guard.check(self.v, self.time_step)
            self.fire(spikes, local_step)
            self.v -= self.threshold * spikes
            if self.recorder:
                self.recorder.step(now, spikes, self.v)
        self.s_out.send(spikes)
