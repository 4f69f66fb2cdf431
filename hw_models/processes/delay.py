"""Delay: sends its input a fixed number of steps later, so that branches meet.

Contract, at each global step t, with x(t) = 0 for t < 1:

    s_out(t) = s_in(t - steps)
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


class Delay(AbstractProcess):
    """Delays spikes.

    Parameters
    ----------
    shape:
        Shape of the spikes in Lava's order: (W, H, C) or (F,).
    steps:
        Delay in steps, >= 1.
    """

    def __init__(self, *, shape: tuple[int, ...], steps: int) -> None:
        super().__init__(shape=shape, steps=steps)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=Delay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyDelayFixed(PyLoihiProcessModel):
    """CPU model of `Delay`: a ring of the last spikes."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.ring = np.zeros((proc_params["steps"], *proc_params["shape"]), np.int32)

    def run_spk(self) -> None:
        """Send the spikes of `steps` global steps ago, and keep those of this step."""
        place = self.time_step % len(self.ring)
        self.s_out.send(self.ring[place].copy())
        self.ring[place] = self.s_in.recv()
