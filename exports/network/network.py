"""A `.net` file as a Lava process, with the attributes of lava-dl's `netx.hdf5.Network`."""

from itertools import pairwise
from pathlib import Path

from lava.magma.core.decorator import implements, tag
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from exports.lava.partition import even_cuts, possible_cuts
from exports.netx import read_net
from hw_models.block_layout import BlockLayout
from hw_models.processes.block import Block
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse


class Network(AbstractProcess):
    """The network of a `.net` file.

    Connect a port that sends its graded input spikes to `inp` on every wake step of a sample
    (nothing on sleep steps) and take the readout's accumulator from `out`, as many steps later as
    the network is deep. It is as long as its layers; `str()` gives a table of them.

    Parameters
    ----------
    net_config:
        Path of the file.
    num_layers, skip_layers:
        Take only the first so many layers, and leave the first of those out. The network can be
        cut only where a single layer's spikes pass.
    input_message_bits:
        0, or the bits of the input spikes, which the file knows.
    input_shape:
        None, or the (W, H, C) or (F,) of the input, which the file knows.
    reset_interval:
        None, or the steps of a sample, which the file knows: state is reset before each.
    reset_offset:
        Steps before the first sample arrives at `inp`, counted from the first step.
    batch:
        Samples that advance together; from 2 on, shapes have the batch in front.
    blocks:
        Blocks the layers are grouped into; as many as there are places to cut by default.

    Attributes
    ----------
    inp, out:
        Ports.
    layers:
        Blocks, in order; `in_layer` and `out_layer` are the first and the last.

    Raises
    ------
    TargetError
        If an argument contradicts the file, or the network cannot be cut there.
    NetFileError
        If the file is missing, damaged or not one of ours.
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
        self.program: IntProgram = read_net(Path(net_config))
        self._check_interval(reset_interval)
        edges = self._edges(skip_layers, num_layers, blocks)
        self.layers = [
            Block(layout=BlockLayout(self.program, first, last, batch, start=reset_offset))
            for first, last in pairwise(edges)
        ]
        self.populations = self.program.populations[edges[0] : edges[-1]]
        self.in_layer, self.out_layer = self.layers[0], self.layers[-1]
        self._check_input(input_message_bits, input_shape)
        self.inp = InPort(shape=self.in_layer.s_in.shape)
        self.out = OutPort(shape=self.out_layer.s_out.shape)
        self.inp.connect(self.in_layer.s_in)
        for before, after in pairwise(self.layers):
            before.s_out.connect(after.s_in)
        self.out_layer.s_out.connect(self.out)

    @property
    def reset_interval(self) -> int:
        """Steps of a sample."""
        return self.program.schedule.num_steps

    @property
    def depth(self) -> int:
        """Steps from a spike at `inp` to what it causes at `out`."""
        depths = self.program.depths()
        return depths[self.populations[-1].name] - depths[self.in_layer.layout.source]

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.populations)

    def __str__(self) -> str:
        """A table of the layers, in the columns of lava-dl's."""
        head = "|   Type   |  W  |  H  |  C  | ker | str | pad | dil | grp |delay|"
        return "\n".join([head, *(_row(self.program, p) for p in self.populations)])

    def _check_interval(self, interval: int | None) -> None:
        steps = self.program.schedule.num_steps
        if interval not in (None, steps):
            raise TargetError(
                "a sample takes as many steps as the file says",
                node=self.filename,
                found=f"reset_interval {interval}",
                allowed=f"{steps}, or None",
                remedy=f"convert again for {interval} steps",
            )

    def _check_input(self, bits: int, shape: tuple[int, ...] | None) -> None:
        layout = self.in_layer.layout
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

    def _edges(self, skip: int, count: int | None, blocks: int | None) -> tuple[int, ...]:
        total = len(self.program.populations)
        last = total if count is None else min(count, total)
        possible = [0, *possible_cuts(self.program), total]
        for what, place in (("skip_layers", skip), ("num_layers", last)):
            if place not in possible or not skip < last:
                raise TargetError(
                    "the network cannot be cut there",
                    node=self.filename,
                    found=f"{what} {place}",
                    allowed=", ".join(map(str, possible)),
                )
        between = [place for place in possible if skip < place < last]
        if blocks is not None:
            if (skip, last) != (0, total):
                raise TargetError(
                    "only a whole network is grouped into a number of blocks",
                    node=self.filename,
                    found=f"blocks {blocks} with layers {skip} .. {last - 1}",
                    remedy="leave out blocks, or skip_layers and num_layers",
                )
            between = list(even_cuts(self.program, blocks))
        return (skip, *between, last)


def _row(program: IntProgram, population: Population) -> str:
    """One line of the table; of several synapses the one with the largest kernel."""
    shape = population.shape
    channels, height, width = shape if len(shape) == 3 else (shape[0], 1, 1)

    def pair(values: tuple[int, int] | None) -> str:
        return f"{values[1]:2d},{values[0]:2d}" if values else "     "

    synapse = max(
        population.synapses,
        key=lambda s: s.weight.size if isinstance(s, ConvSynapse | DenseSynapse) else 0,
    )
    kernel = stride = padding = dilation = None
    groups, kind = "     ", "Dense"
    if isinstance(synapse, ConvSynapse | WindowSynapse):
        kind = "Conv" if isinstance(synapse, ConvSynapse) else "Pool"
        kernel = (
            (synapse.weight.shape[2], synapse.weight.shape[3])
            if isinstance(synapse, ConvSynapse)
            else synapse.kernel
        )
        stride, padding, dilation = synapse.stride, synapse.padding, synapse.dilation
        groups = f"{synapse.groups:5d}" if isinstance(synapse, ConvSynapse) else groups
    delayed = any(program.delay(population, s) for s in population.synapses)
    cells = [f"{kind:10s}", f"{width:5d}", f"{height:5d}", f"{channels:5d}"]
    cells += [pair(values) for values in (kernel, stride, padding, dilation)]
    return "|" + "|".join([*cells, groups, f"{delayed!s:5s}"]) + "|"


@implements(proc=Network, protocol=LoihiProtocol)
@tag("fixed_pt", "fast")
class NetworkModel(AbstractSubProcessModel):
    """Nothing of its own: the layers are made with the process, as in lava-dl."""

    def __init__(self, proc: AbstractProcess) -> None:
        """Take the process as it is."""
