"""Placement of max pools after their activations, where spikes can be pooled.

A quantized activation is monotone and works element by element with one threshold per channel, so
it commutes with the maximum over a window: `act(max(z)) = max(act(z))`, exactly. Padding is never
the maximum on either side.
"""

from __future__ import annotations

from dataclasses import replace

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Activation, AvgPool2d, FloatProgram, Input, MaxPool2d


def place_max_pools(program: FloatProgram) -> FloatProgram:
    """Move every max pool from before an activation to after it.

    Raises
    ------
    UnsupportedModuleError
        If a pool before an activation has other users, or its source does not send unary
        spikes: the network's input, or an average pool.
    """
    draft = GraphEditor(program)
    while True:
        pools = [n for n in draft.nodes() if isinstance(n, MaxPool2d)]
        # Of several pools in a row, the last one precedes the activation.
        early = [p for p in pools if not draft.is_spiking(p.source)]
        if not early:
            for pool in pools:
                _check_source(draft, pool)
            return draft.program()
        _move(draft, early[-1])


def _move(draft: GraphEditor, pool: MaxPool2d) -> None:
    users = draft.consumers(pool.name)
    if not users or not all(isinstance(u, Activation) for u in users):
        raise UnsupportedModuleError(
            "a max pool of values that are no spikes must be followed by activations only",
            node=pool.name,
            found=f"{pool.source} ({type(draft.node(pool.source)).__name__}) in front of it, "
            + (", ".join(f"{u.name} ({type(u).__name__})" for u in users) or "the output")
            + " behind it",
            allowed="a quantized activation right in front of it, or nothing else behind it",
            remedy="put a quantized activation in front of the max pool; where one stands behind "
            "it, the result is the same",
        )
    for index, activation in enumerate(users):
        draft.put(replace(activation, sources=pool.sources))
        name = pool.name if index == 0 else draft.new_name(f"{pool.name}[{index}]")
        draft.redirect(activation.name, name)
        draft.put(replace(pool, name=name, sources=(activation.name,)))


def _check_source(draft: GraphEditor, pool: MaxPool2d) -> None:
    source = draft.node(pool.source)
    if isinstance(source, Input):
        raise UnsupportedModuleError(
            "a max pool directly on the input has no spikes to count",
            node=pool.name,
            found="graded values of the input",
            allowed="a max pool behind a quantized activation",
            remedy="begin with a convolution and its activation, or pool the images in the data "
            "pipeline",
        )
    if isinstance(source, AvgPool2d):
        raise UnsupportedModuleError(
            "a max pool cannot follow an average pool, whose sums are not single spikes",
            node=pool.name,
            found=f"behind {source.name}",
            remedy="put a convolution and a quantized activation between them, or use one kind "
            "of pool",
        )
