"""Relay: sends its summed current as a graded spike in the same step; it has no state.

Contract, at each local step of a sample: `s = a_in`. Its membrane potential is recorded as 0.
"""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.local_time import LocalTime
from hw_models.recorder import SPIKE_BITS, Recorder
from hw_models.state_guard import StateGuard


class RelayProcess(AbstractProcess):
    """A relay population.

    Parameters
    ----------
    shape:
        (W, H, C) or (F,).
    clock, state_bits, recorder:
        As for `SpikingPopulation`; a spike must also fit the 8 bits of a recording.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        clock: LocalTime,
        state_bits: int = 24,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape, clock=clock, state_bits=state_bits, recorder=recorder, name=name
        )
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=RelayProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRelayFixed(PyLoihiProcessModel):
    """CPU model of `RelayProcess`: sends its current as graded spikes."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.recorder: Recorder | None = proc_params["recorder"]
        self.guard = StateGuard(min(SPIKE_BITS, proc_params["state_bits"]), proc_params["name"])
        self.silence = np.zeros(proc_params["shape"], np.int32)

    def run_spk(self) -> None:
        """Send the current of one global step as spikes, zeros outside the local time."""
        spikes = self.a_in.recv()
        now = self.clock.at(self.time_step)
        if now is None:
            spikes = self.silence
        else:
            self.guard.check(spikes, self.time_step)
            if self.recorder:
                self.recorder.step(now, spikes, self.silence)
        self.s_out.send(spikes)
