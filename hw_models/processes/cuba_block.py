"""CubaBlock: a layer of a stock netx file, with the attributes of lava-dl's netx blocks.

Contract: a `Connection` followed by Lava's own LIF, with one step of latency. The model of the
connection is selected as for `Block`; the neurons are stock in both models.
"""

import typing as ty

import numpy as np
from lava.magma.core.decorator import implements, tag
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.process import LIF, LIFReset

from hw_models.axes import lava_shape
from hw_models.cuba_layer import CubaLayer
from hw_models.processes.connection import Connection

BIAS_EXPONENT = 6
"""log2 of a weight unit in the state (lava-dl 0.6.0, netx `hdf5.py`, `get_neuron_params`)."""


class CubaBlock(AbstractProcess):
    """Synapse and neurons of one layer.

    Parameters
    ----------
    layer:
        The integers of the layer.
    batch:
        Number of samples that advance together; from 2 on, shapes begin with the batch axis.
    reset:
        (interval, offset): the neurons are reset before each global step whose number modulo
        `interval` is `offset`; None for no reset.

    Attributes
    ----------
    inp, out:
        Incoming and outgoing spikes; for an input layer, `inp` takes currents in weight units.
    synapse:
        A `Connection`; an input layer has none.
    neuron:
        Lava's LIF or LIFReset, whose `u`, `v` and `bias_mant` can be set, read and reset.
    shape:
        (W, H, C) or (F,).
    transform:
        `weight` and `bias` of an input layer, with which an image in 0 .. 1 becomes the neurons'
        bias.
    """

    def __init__(
        self,
        *,
        layer: CubaLayer,
        batch: int = 1,
        reset: tuple[int, int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(layer=layer, batch=batch, reset=reset, name=name)
        self.shape = lava_shape(layer.shape)
        self.input_message_bits, self.output_message_bits = layer.message_bits, 0
        self.neuron = _neurons(layer, batch, reset)
        self.out = OutPort(shape=self.neuron.s_out.shape)
        self.neuron.s_out.connect(self.out)
        if layer.synapse is None:
            self.inp = InPort(shape=self.neuron.a_in.shape)
            self.inp.connect(self.neuron.a_in)
        else:
            self.synapse = Connection(
                synapse=layer.synapse,
                source_shape=layer.source_shape,
                delays=layer.delays,
                message_bits=layer.message_bits,
                batch=batch,
            )
            self.inp = InPort(shape=self.synapse.s_in.shape)
            self.inp.connect(self.synapse.s_in)
            self.synapse.a_out.connect(self.neuron.a_in)
        if layer.transform is not None:
            self.transform = dict(zip(("weight", "bias"), layer.transform, strict=True))

    @property
    def block(self) -> str:
        """Kind of the layer: Input, Conv or Dense."""
        kind: str = self.proc_params["layer"].kind
        return kind


def _neurons(layer: CubaLayer, batch: int, reset: tuple[int, int] | None) -> AbstractProcess:
    shape = (*(() if batch == 1 else (batch,)), *lava_shape(layer.shape))
    bias = 0 if layer.bias is None else np.broadcast_to(layer.bias, shape).copy()
    settings: dict[str, ty.Any] = {
        "shape": shape,
        "vth": layer.neuron.threshold,
        # Lava's LIF adds 1 to du, but not to dv.
        "du": layer.neuron.current_decay - 1,
        "dv": layer.neuron.voltage_decay,
        "bias_mant": bias,
        "bias_exp": BIAS_EXPONENT,
    }
    if reset is None:
        return LIF(**settings)
    return LIFReset(reset_interval=reset[0], reset_offset=reset[1], **settings)


@implements(proc=CubaBlock, protocol=LoihiProtocol)
@tag("fixed_pt", "fast")
class SubCubaBlock(AbstractSubProcessModel):
    """An empty model: synapse and neurons are made with the process, as in lava-dl."""

    def __init__(self, proc: AbstractProcess) -> None:
        """Accept the process without any change."""
