"""Layers of a stock netx file for a `Network`.

Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

from exports.lava.layer_chain import LayerChain, table_row
from exports.netx.cuba_reader import read_cuba_net
from hw_models.axes import lava_shape
from hw_models.processes.cuba_block import CubaBlock
from toolchain.errors import TargetError


def cuba_layers(
    filename: str,
    part: tuple[int, int | None],
    *,
    message_bits: int,
    input_shape: tuple[int, ...] | None,
    reset: tuple[int | None, int],
    batch: int,
) -> LayerChain:
    """Blocks of the layers `part` of the file, counted as lava-dl's loader does.

    Parameters
    ----------
    message_bits, input_shape:
        Of the spikes that come in; (W, H, C) or (F,) where the file does not say.
    reset:
        Interval and offset; layers are reset one after the other, as spikes reach them.

    Raises
    ------
    FormatError
        If the file is damaged, or lava-dl's loader would run something else than it holds.
    TargetError
        If nothing is left, or a layer would never be reset.
    """
    shape = None if input_shape is None else lava_shape(tuple(input_shape))
    skip, count = part
    found = read_cuba_net(Path(filename), count, message_bits, shape)
    taken = [layer for layer in found[skip:] if layer is not None]
    if not taken:
        raise TargetError(
            "no layer is left",
            node=filename,
            found=f"skip_layers {skip}, num_layers {count}",
            allowed=f"fewer than {len(found)} skipped",
        )
    if taken[0].kind == "Dense":
        # Nothing is in front of it to flatten; its weights lie in C, H, W order already.
        taken[0] = replace(taken[0], source_shape=(prod(taken[0].source_shape),))
    interval, offset = reset
    # Lava counts steps from 1.
    last_offset = offset + len(taken)
    if interval is not None and last_offset >= interval:
        raise TargetError(
            "Lava's LIFReset would never reset the last layers",
            node=filename,
            found=f"reset_interval {interval}, the last layer due at step {last_offset} of it",
            allowed=f"reset_interval > {last_offset}",
            remedy="a longer interval, or lava.proc.io.reset.Reset processes of your own",
        )
    layers = [
        CubaBlock(
            layer=layer,
            batch=batch,
            reset=None if interval is None else (interval, offset + 1 + index),
        )
        for index, layer in enumerate(taken)
    ]
    rows = [
        table_row(layer.kind, layer.shape, layer.synapse, delayed=layer.delays is not None)
        for layer in taken
    ]
    depth = sum(layer.synapse is not None for layer in taken)
    return LayerChain(layers, rows, depth, interval, 0)
