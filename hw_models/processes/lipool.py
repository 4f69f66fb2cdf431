"""LIPool: max pool over spikes, which sends the change of each window's largest net count.

Contract, at each local step of a sample (before the first: `count = 0`, `largest = 0`):

    count += s_in
    s_out = (maximum of count over the window) - largest;  largest += s_out

The maximum is taken over real elements; those of the padding are never the largest.
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
from hw_models.recorder import Recorder
from hw_models.state_guard import StateGuard


class LIPoolProcess(AbstractProcess):
    """Max-pool population; its spikes come directly from the source, one step of latency later.

    Parameters
    ----------
    source_shape, shape:
        (W, H, C) of the source and of this layer.
    kernel, stride, padding, dilation:
        (along W, along H).
    clock, state_bits, recorder:
        As for `SpikingPopulation`.
    """

    def __init__(
        self,
        *,
        source_shape: tuple[int, ...],
        shape: tuple[int, ...],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        clock: LocalTime,
        state_bits: int = 24,
        recorder: Recorder | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            source_shape=source_shape,
            shape=shape,
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            clock=clock,
            state_bits=state_bits,
            recorder=recorder,
            name=name,
        )
        self.s_in = InPort(shape=source_shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=LIPoolProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyLIPoolFixed(PyLoihiProcessModel):
    """CPU model of `LIPoolProcess`, in int32."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.clock: LocalTime = proc_params["clock"]
        self.recorder: Recorder | None = proc_params["recorder"]
        self.guard = StateGuard(proc_params["state_bits"], proc_params["name"])
        self.kernel: tuple[int, int] = proc_params["kernel"]
        self.stride: tuple[int, int] = proc_params["stride"]
        self.dilation: tuple[int, int] = proc_params["dilation"]
        along_w, along_h = proc_params["padding"]
        width, height, channels = proc_params["source_shape"]
        self.largest = np.zeros(proc_params["shape"], np.int32)
        # The last windows may need more behind the source than stands in front of it.
        seen = [
            (windows - 1) * stride + dilation * (kernel - 1) + 1
            for windows, stride, dilation, kernel in zip(
                self.largest.shape[:2], self.stride, self.dilation, self.kernel, strict=True
            )
        ]
        plane = (max(seen[0], along_w + width), max(seen[1], along_h + height))
        self.padded = np.full((*plane, channels), np.iinfo(np.int32).min, np.int32)
        # A view, so that it shows every new count; the padding stays below all counts.
        self.count = self.padded[along_w : along_w + width, along_h : along_h + height]

    def window_maxima(self) -> np.ndarray:
        """Largest count of each window, int32 (W, H, C)."""
        maxima = np.full_like(self.largest, np.iinfo(np.int32).min)
        columns, rows = len(maxima), len(maxima[0])
        for column, row in np.ndindex(*self.kernel):
            w, h = column * self.dilation[0], row * self.dilation[1]
            shifted = self.padded[w :: self.stride[0], h :: self.stride[1]]
            np.maximum(maxima, shifted[:columns, :rows], out=maxima)
        return maxima

    def run_spk(self) -> None:
        """Count the spikes of one global step, and send by how much the largest counts grew."""
        received = self.s_in.recv()
        spikes = np.zeros(self.largest.shape, np.int32)
        now = self.clock.at(self.time_step)
        if now is not None:
            if now[1] == 1:
                self.count[...] = 0
                self.largest[...] = 0
            self.count += received
            self.guard.check(self.count, self.time_step)
            spikes = self.window_maxima() - self.largest
            self.largest += spikes
            if self.recorder:
                self.recorder.step(now, spikes, self.largest)
        self.s_out.send(spikes)
