"""Input layer: sends each sample as a graded spike on its wake steps, nothing asleep."""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.local_time import LocalTime


class GradedInput(AbstractProcess):
    """Sends samples from a `.npy` file of shape (N, *shape), integers, back to back.

    Parameters
    ----------
    shape:
        Shape of a sample in Lava's order: (W, H, C) or (F,).
    samples_path:
        The file, opened as a memory map inside the model.
    clock:
        The input's local time (depth 0).
    """

    def __init__(self, *, shape: tuple[int, ...], samples_path: str, clock: LocalTime) -> None:
        super().__init__(shape=shape, samples_path=samples_path, clock=clock)
        self.s_out = OutPort(shape=shape)


@implements(proc=GradedInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGradedInputFixed(PyLoihiProcessModel):
    """CPU model of `GradedInput`."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.samples = np.load(proc_params["samples_path"], mmap_mode="r", allow_pickle=False)
        self.silence = np.zeros(proc_params["shape"], np.int32)

    def run_spk(self) -> None:
        """One global step."""
        now = self.clock.at(self.time_step)
        if now is None or not self.clock.awake(now[1]):
            self.s_out.send(self.silence)
        else:
            self.s_out.send(np.asarray(self.samples[now[0]], np.int32))
