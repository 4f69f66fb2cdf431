"""Block: consecutive populations of a program as one process, for a batch of samples.

Contract: at each global step the block takes and sends the spikes that the populations' own
processes would take and send, with one step of latency per layer; the samples of a batch advance
together. Two models: `fast` runs it in one process, event by event; `fixed_pt` expands it into
stock synapses and one process per population, for a batch of one. Lava's own run configurations
prefer a leaf model, so the fast one answers to `fixed_pt` as well; the stock one is selected by
`hw_models.run_config.SimCfg("fixed_pt")`, or with Lava's `select_sub_proc_model=True`.
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
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.block_layout import BlockLayout
from hw_models.recorder import Recorder
from toolchain.errors import TargetError

if ty.TYPE_CHECKING:
    from hw_models.fast.pipeline import Pipeline


class BlockProcess(AbstractProcess):
    """Consecutive layers of a program.

    Parameters
    ----------
    layout:
        The layers, their schedule, and the number of samples at a time.
    recorders:
        Recorder of the spikes and membrane potentials of a population, by name.
    atrlif:
        Whether the stock model also uses Lava's ATRLIF neurons, as far as `check_atrlif` allows.

    Attributes
    ----------
    layout:
        As given.
    s_in:
        Spikes of the layer before, (W, H, C) or (F,), after the batch axis if the batch is not 1.
    s_out:
        Spikes of the last layer, with the same axes; accumulator of a readout.
    v:
        Membrane potentials, int32, population after population, each with the batch axis first;
        `layout.potentials` returns those of a layer.
    """

    def __init__(
        self,
        *,
        layout: BlockLayout,
        recorders: ty.Mapping[str, Recorder] | None = None,
        atrlif: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(layout=layout, recorders=dict(recorders or {}), atrlif=atrlif, name=name)
        self.layout = layout
        self.s_in = InPort(shape=layout.in_shape)
        self.s_out = OutPort(shape=layout.out_shape)
        self.v = Var(shape=(layout.state_size,), init=0)


@implements(proc=BlockProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fast", "fixed_pt")
class PyBlockFast(PyLoihiProcessModel):
    """CPU model of `BlockProcess`: a pipeline of its layers in one process."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: ty.Any) -> None:
        super().__init__(proc_params)
        self.layout: BlockLayout = proc_params["layout"]
        self.recorders: dict[str, Recorder] = proc_params["recorders"]
        self.pipeline: Pipeline | None = None

    def run_spk(self) -> None:
        """Send the spikes of one global step, and receive those of the block in front."""
        if self.pipeline is None:
            # Lava sets the variables after it makes the model, so the pipeline is made here.
            from hw_models.fast.pipeline import Pipeline

            self.pipeline = Pipeline(self.layout, self.v, self.recorders)
        sent = self.pipeline.step(self.time_step)
        self.s_out.send(sent.astype(np.int32).reshape(self.layout.out_shape))
        self.pipeline.receive(self.s_in.recv().reshape(self.layout.batched_in_shape))


@implements(proc=BlockProcess, protocol=LoihiProtocol)
@tag("fixed_pt", "stock")
class SubBlockStock(AbstractSubProcessModel):
    """`BlockProcess` as stock synapses and one process per population."""

    def __init__(self, proc: ty.Any) -> None:
        # Stock synapses import scipy, which the fast model does not need.
        from hw_models.stock.expansion import expand

        layout: BlockLayout = proc.proc_params["layout"]
        if layout.batch != 1:
            raise TargetError(
                "stock synapses run one sample at a time",
                node=proc.name,
                found=f"a batch of {layout.batch}",
                remedy='use the fast models: SimCfg("fast")',
            )
        processes, port = expand(
            layout.program,
            layout.populations,
            (layout.source, proc.in_ports.s_in),
            layout.clock,
            proc.proc_params["recorders"],
            atrlif=proc.proc_params["atrlif"],
        )
        # Lava looks for the processes of a model among its attributes.
        for index, process in enumerate(processes):
            setattr(self, f"process_{index}", process)
        port.connect(proc.out_ports.s_out)
