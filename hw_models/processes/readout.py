"""Readout: sums its input, and its bias on wake steps, and sends the sum as a graded message."""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.local_time import LocalTime
from hw_models.recorder import Recorder
from hw_models.state_guard import StateGuard


class ReadoutProcess(AbstractProcess):
    """Integer accumulator; its value after the last local step is the sample's output.

    Parameters
    ----------
    shape:
        (K,) or (W, H, C).
    bias:
        Integers, (K,) or (C,), added on wake steps.
    clock, state_bits, recorder:
        As for `SpikingPopulation`.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        bias: np.ndarray,
        clock: LocalTime,
        state_bits: int = 24,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(clock=clock, state_bits=state_bits, recorder=recorder, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.bias = Var(shape=bias.shape, init=bias)
        self.v = Var(shape=shape, init=0)


@implements(proc=ReadoutProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadoutFixed(PyLoihiProcessModel):
    """CPU model of `ReadoutProcess`, in int32."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.recorder: Recorder | None = proc_params["recorder"]
        self.guard = StateGuard(proc_params["state_bits"], proc_params["name"])

    def run_spk(self) -> None:
        """Add the current of one global step, in wake steps with the bias, and send the sum."""
        current = self.a_in.recv()
        now = self.clock.at(self.time_step)
        if now is not None:
            if now[1] == 1:
                self.v[...] = 0
            self.v += current
            if self.clock.awake(now[1]):
                self.v += self.bias
            self.guard.check(self.v, self.time_step)
            if self.recorder:
                self.recorder.step(now, None, self.v)
        self.s_out.send(self.v.copy() if now is not None else np.zeros_like(self.v))
