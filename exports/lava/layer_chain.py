"""The layers of a `Network`, and the table that it prints of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolchain.program.synapse import ConvSynapse, DenseSynapse, Pair, WindowSynapse

TABLE_HEAD = "|   Type   |  W  |  H  |  C  | ker | str | pad | dil | grp |delay|"


@dataclass(frozen=True)
class LayerChain:
    """Processes in order, each of which takes the spikes of the one before.

    Attributes
    ----------
    layers:
        Processes with the ports `inp` and `out`, or `s_in` and `s_out`.
    rows:
        Lines of the table, one per layer.
    depth:
        Steps from a spike at the first layer to its effect at the last.
    reset_interval:
        Number of steps after which the state is reset, or None.
    output_message_bits:
        Message bits of the last layer; 0 for unary spikes.
    """

    layers: list[Any]
    rows: list[str]
    depth: int
    reset_interval: int | None
    output_message_bits: int

    @property
    def table(self) -> str:
        """The table: its head and all rows."""
        return "\n".join([TABLE_HEAD, *self.rows])


def table_row(
    kind: str,
    shape: tuple[int, ...],
    synapse: ConvSynapse | DenseSynapse | WindowSynapse | None,
    *,
    delayed: bool,
) -> str:
    """One line of the table, in the columns of lava-dl's table; `shape` is (C, H, W) or (F,).

    A source whose values stand n apart has the stride `/n`.
    """
    channels, height, width = {1: (*shape, 1, 1), 2: (1, *shape)}.get(len(shape), shape)

    def pair(values: Pair | None) -> str:
        return f"{values[1]:2d},{values[0]:2d}" if values else "     "

    kernel = stride = padding = dilation = None
    groups = "     "
    if isinstance(synapse, ConvSynapse | WindowSynapse):
        kernel = synapse.kernel
        stride, padding, dilation = synapse.stride, synapse.padding, synapse.dilation
        groups = f"{synapse.groups:5d}" if isinstance(synapse, ConvSynapse) else groups
    cells = [f"{kind:10s}", f"{width:5d}", f"{height:5d}", f"{channels:5d}"]
    cells += [pair(values) for values in (kernel, stride, padding, dilation)]
    if isinstance(synapse, ConvSynapse) and synapse.upsample != (1, 1):
        cells[5] = f"/{synapse.upsample[1]},/{synapse.upsample[0]}"
    return "|" + "|".join([*cells, groups, f"{delayed!s:5s}"]) + "|"
