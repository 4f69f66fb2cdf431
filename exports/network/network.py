"""A `.net` file as a Lava process, with the attributes of lava-dl's `netx.hdf5.Network`."""

from itertools import pairwise
from pathlib import Path

from lava.magma.core.decorator import implements, tag
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from exports.lava.cuba_layers import cuba_layers
from exports.lava.layer_chain import LayerChain
from exports.lava.own_layers import own_layers
from exports.netx import read_net
from exports.netx.cuba_reader import is_stock_net
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram


class Network(AbstractProcess):
    """The network of a `.net` file, written by this project or by lava-dl (CUBA, conv and dense).

    Connect a port that sends spikes to `inp` and read the spikes of the last layer from `out`, as
    many steps later as the network is deep. `len()` is the number of layers; `str()` gives a table.

    Files of this project take graded input spikes on every wake step of a sample (the same on each,
    unless the file says that they are per step; nothing on sleep steps) and send the readout's
    accumulator; their steps and resets are in the file.
    Files of lava-dl run with the same bits as in its own loader, or raise an error if the loader
    would run another network than they describe. A convolution of 128 or more groups, which the
    loader turns into zeros, is run.

    Parameters
    ----------
    net_config:
        Path of the file.
    num_layers, skip_layers:
        Number of layers to take, from the first, and how many of those to skip. A file of this
        project can be cut only where the spikes of a single layer pass; in a file of lava-dl all
        entries count, inputs and flattens included.
    input_message_bits:
        Message bits of the input spikes, 0 for unary ones; files of this project state it.
    input_shape:
        (W, H, C) or (F,) of the input, if the file does not state it; or None.
    reset_interval:
        Number of steps after which the state is reset; files of this project state it. None means
        no reset for a file of lava-dl.
    reset_offset:
        Number of steps before the first sample arrives at `inp`, from the first step.
    batch:
        Number of samples that advance together; from 2 on, shapes begin with the batch axis.
    blocks:
        Number of blocks into which layers are grouped; by default as many as the places to cut
        allow. Layers of lava-dl's files are not grouped.

    Attributes
    ----------
    inp, out:
        Input and output port.
    layers:
        `Block`s or `CubaBlock`s, in order; `in_layer` and `out_layer` are the first and the last.
    depth:
        Steps from a spike at `inp` to its effect at `out`.
    program:
        Program of a file of this project, else None.

    Raises
    ------
    TargetError
        If an argument contradicts the file, or the network cannot be cut at these places.
    FormatError
        If the file is missing, damaged, or of another format.
    """

    def __init__(
        self,
        net_config: str | Path,
        num_layers: int | None = None,
        skip_layers: int = 0,
        input_message_bits: int = 0,
        input_shape: tuple[int, ...] | None = None,
        reset_interval: int | None = None,
        reset_offset: int = 0,
        *,
        batch: int = 1,
        blocks: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(net_config=str(net_config), name=name)
        self.filename = str(net_config)
        self.program: IntProgram | None = None
        part = (skip_layers, num_layers)
        if is_stock_net(Path(net_config)):
            if blocks is not None:
                raise TargetError(
                    "layers of lava-dl's files are not grouped into blocks",
                    node=self.filename,
                    found=f"blocks {blocks}",
                    allowed="None",
                )
            chain = cuba_layers(
                self.filename,
                part,
                message_bits=input_message_bits,
                input_shape=input_shape,
                reset=(reset_interval, reset_offset),
                batch=batch,
            )
            ends = [(layer.inp, layer.out) for layer in chain.layers]
        else:
            self.program = read_net(Path(net_config))
            self._check_interval(self.program, reset_interval)
            chain = own_layers(
                self.program, self.filename, part, blocks=blocks, batch=batch, start=reset_offset
            )
            self._check_input(chain, input_message_bits, input_shape)
            ends = [(layer.s_in, layer.s_out) for layer in chain.layers]
        self._chain = chain
        self.layers = chain.layers
        self.in_layer, self.out_layer = self.layers[0], self.layers[-1]
        self.depth, self.reset_interval = chain.depth, chain.reset_interval
        self.output_message_bits = chain.output_message_bits
        self.inp = InPort(shape=ends[0][0].shape)
        self.out = OutPort(shape=ends[-1][1].shape)
        self.inp.connect(ends[0][0])
        for (_, before), (after, _) in pairwise(ends):
            before.connect(after)
        ends[-1][1].connect(self.out)

    def __len__(self) -> int:
        return len(self._chain.rows)

    def __str__(self) -> str:
        """A table of the layers, in the columns of lava-dl's."""
        return self._chain.table

    def _check_interval(self, program: IntProgram, interval: int | None) -> None:
        steps = program.schedule.num_steps
        if interval not in (None, steps):
            raise TargetError(
                "a sample takes as many steps as the file says",
                node=self.filename,
                found=f"reset_interval {interval}",
                allowed=f"{steps}, or None",
                remedy=f"convert again for {interval} steps",
            )

    def _check_input(self, chain: LayerChain, bits: int, shape: tuple[int, ...] | None) -> None:
        layout = chain.layers[0].layout
        known = layout.message_bits
        if bits not in (0, known):
            raise TargetError(
                "the input spikes have as many bits as the file says",
                node=self.filename,
                found=f"input_message_bits {bits}",
                allowed=f"{known}, or 0",
            )
        if shape is not None and tuple(shape) != layout.batched_in_shape[1:]:
            raise TargetError(
                "the input has the shape that the file says",
                node=self.filename,
                found=f"input_shape {tuple(shape)}",
                allowed=f"{layout.batched_in_shape[1:]}, or None",
            )


@implements(proc=Network, protocol=LoihiProtocol)
@tag("fixed_pt", "fast")
class NetworkModel(AbstractSubProcessModel):
    """An empty model: the layers are made with the process, as in lava-dl."""

    def __init__(self, proc: AbstractProcess) -> None:
        """Accept the process without any change."""
