"""Input layer: sends samples as graded spikes on wake steps, and nothing on sleep steps."""

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
    """Sends samples from a `.npy` file of shape (N, *sample), integers, back to back.

    A sample is sent on each of its wake steps. With `per_step` it has a tensor for each of the T
    wake steps instead, in a file of shape (N, T, *sample).

    Parameters
    ----------
    shape:
        Shape of a sample in Lava's order: (W, H, C) or (F,); with a batch, (B, *sample).
    batch:
        Number of samples sent together; the last batch is padded with zeros.
    samples_path:
        Path of the file, opened as a memory map inside the model.
    clock:
        Local time of the input (depth 0).
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        samples_path: str,
        clock: LocalTime,
        batch: int = 1,
        per_step: bool = False,
    ) -> None:
        super().__init__(
            shape=shape, samples_path=samples_path, clock=clock, batch=batch, per_step=per_step
        )
        self.s_out = OutPort(shape=shape)


@implements(proc=GradedInput, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGradedInputFixed(PyLoihiProcessModel):
    """CPU model of `GradedInput`, with its samples in a memory map."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.samples = np.load(proc_params["samples_path"], mmap_mode="r", allow_pickle=False)
        self.batch: int = proc_params["batch"]
        self.per_step: bool = proc_params["per_step"]
        sample = self.samples.shape[2 if self.per_step else 1 :]
        self.sent = np.zeros((self.batch, *sample), np.int32)
        self.shape: tuple[int, ...] = proc_params["shape"]
        self.silence = np.zeros(self.shape, np.int32)

    def run_spk(self) -> None:
        """Send the batch of this global step while it is awake, zeros otherwise."""
        now = self.clock.at(self.time_step)
        if now is None or not self.clock.awake(now[1]):
            self.s_out.send(self.silence)
            return
        if now[1] == 1 or self.per_step:
            first = now[0] * self.batch
            samples = self.samples[first : first + self.batch]
            if self.per_step:
                samples = samples[:, now[1] - 1]
            self.sent[...] = 0
            self.sent[: len(samples)] = samples
        self.s_out.send(self.sent.reshape(self.shape))
