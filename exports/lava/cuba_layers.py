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
    """Blocks of the layers `part` of the file, counted as by lava-dl's loader.

    Parameters
    ----------
    message_bits, input_shape:
        Message bits of the incoming spikes, and their shape (W, H, C) or (F,) if the file does not
        state it.
    reset:
        Interval and offset in steps; layers are reset in order, as spikes reach them.

    Raises
    ------
    FormatError
        If the file is damaged, or lava-dl's loader would run another network than it describes.
    TargetError
        If no layer remains, or a layer would never be reset.
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
        # No layer before it needs a flatten; its weights are already in C, H, W order.
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
