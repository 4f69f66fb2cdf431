"""Spread: spikes on the larger plane that a kernel sees, with zeros around and between them.

Contract, at each global step t, with `places` the columns and rows of the source on the plane:

    s_out(t)[places] = s_in(t);  s_out(t) = 0 elsewhere
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


class Spread(AbstractProcess):
    """Spreads spikes in front of a stock convolution, within the same step.

    Parameters
    ----------
    shape:
        (W, H, C) of the spikes.
    plane:
        (W, H) of the larger plane.
    places:
        Slices of its columns and rows, where the spikes stand.
    """

    def __init__(
        self, *, shape: tuple[int, ...], plane: tuple[int, int], places: tuple[slice, slice]
    ) -> None:
        super().__init__(shape=shape, plane=plane, places=places)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=(*plane, shape[2]))


@implements(proc=Spread, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpreadFixed(PyLoihiProcessModel):
    """CPU model of `Spread`."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.places: tuple[slice, slice] = proc_params["places"]
        self.plane = np.zeros((*proc_params["plane"], proc_params["shape"][2]), np.int32)

    def run_spk(self) -> None:
        """Send the spikes of this step from their places."""
        self.plane[self.places] = self.s_in.recv()
        self.s_out.send(self.plane.copy())
