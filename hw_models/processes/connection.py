"""Connection: one synapse as a process of its own, for layers built of stock neurons.

Contract: it sends the currents of the spikes of the step before, or of earlier steps by delays. Two
models, selected like those of `Block`: `fast`, event by event in one process, for a batch of
samples; and `fixed_pt` on stock Conv and Dense, for one. A sum beyond 24 bits, which stock Conv
wraps, and a spike that unary messages cannot carry, which stock synapses take for 1, stop the fast
model.
"""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.axes import lava_shape
from toolchain.errors import TargetError
from toolchain.program.synapse import ConvSynapse, DenseSynapse


class Connection(AbstractProcess):
    """A convolution or a dense connection.

    Parameters
    ----------
    synapse:
        The synapse; dense weights are for a source flattened in C, H, W order.
    source_shape:
        (C, H, W) or (F,) of the source.
    delays:
        int (F_out, F_in) in steps, for a dense synapse; None for no delays.
    message_bits:
        Message bits of the spikes; 0 for unary ones.
    batch:
        Number of samples that advance together; from 2 on, shapes begin with the batch axis.

    Attributes
    ----------
    s_in:
        Spikes, (W, H, C) or (F,).
    a_out:
        Currents, (W, H, C) or (F,).
    """

    def __init__(
        self,
        *,
        synapse: ConvSynapse | DenseSynapse,
        source_shape: tuple[int, ...],
        delays: np.ndarray | None = None,
        message_bits: int = 0,
        batch: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(
            synapse=synapse,
            source_shape=source_shape,
            delays=delays,
            message_bits=message_bits,
            batch=batch,
            name=name,
        )
        in_front = () if batch == 1 else (batch,)
        self.s_in = InPort(shape=(*in_front, *lava_shape(source_shape)))
        self.a_out = OutPort(shape=(*in_front, *lava_shape(synapse.output_shape(source_shape))))


@implements(proc=Connection, protocol=LoihiProtocol)
@requires(CPU)
@tag("fast", "fixed_pt")
class PyConnectionFast(PyLoihiProcessModel):
    """CPU model of `Connection`: event by event, so that its work grows with the spikes."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        from hw_models.fast.currents import Currents

        names = ("synapse", "source_shape", "delays", "message_bits", "batch")
        self.currents = Currents(*(proc_params[name] for name in names))

    def run_spk(self) -> None:
        """Send the currents that are due in this global step, then receive its spikes."""
        sent = self.currents.now()
        self.a_out.send(sent.reshape(self.a_out.shape))
        self.currents.receive(self.s_in.recv())


@implements(proc=Connection, protocol=LoihiProtocol)
@tag("fixed_pt", "stock")
class SubConnectionStock(AbstractSubProcessModel):
    """`Connection` as a stock synapse."""

    def __init__(self, proc: ty.Any) -> None:
        from hw_models.stock.connection import connection

        params = proc.proc_params
        if params["batch"] != 1:
            raise TargetError(
                "stock synapses run one sample at a time",
                node=proc.name,
                found=f"a batch of {params['batch']}",
                remedy='use the fast models: SimCfg("fast")',
            )
        self.synapse, port = connection(
            params["synapse"],
            params["source_shape"],
            proc.in_ports.s_in,
            params["message_bits"],
            params["delays"],
        )
        port.connect(proc.out_ports.a_out)
