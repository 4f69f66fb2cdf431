"""Reader of lava-dl's own netx files: conv and dense layers with CUBA neurons.

Files that lava-dl's loader changes silently raise an error here with the reason; files that are
read run with the same bits there.
"""

from __future__ import annotations

from pathlib import Path

from exports.netx.layout import LAYERS, OWN
from exports.netx.opened import opened
from exports.netx.stock_layers import walk
from hw_models.cuba_layer import CubaLayer
from toolchain.errors import FormatError


def is_stock_net(path: Path) -> bool:
    """Whether the file is a netx file without this project's additions.

    Raises
    ------
    FormatError
        If the file is missing or not HDF5.
    """
    with opened(path) as root:
        return LAYERS in root.names() and OWN not in root.names()


def read_cuba_net(
    path: Path,
    num_layers: int | None = None,
    message_bits: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> list[CubaLayer | None]:
    """The layers of the file at `path`, by their index in it.

    Parameters
    ----------
    num_layers:
        Number of layers to read, from the first, flattens and the input included.
    message_bits:
        Message bits of the incoming spikes, if no input layer replaces them.
    input_shape:
        (C, H, W) or (F,) of the input, for files that do not state it.

    Returns
    -------
    One layer per index, None for layers without neurons.

    Raises
    ------
    FormatError
        If the file is damaged, or contains data that lava-dl's loader does not read, or would read
        as other data.
    """
    with opened(path) as root:
        return list(walk(root, _refuse, num_layers, message_bits, input_shape))


def _refuse(_: str, error: FormatError, refused: bool) -> None:
    if refused:
        raise error
