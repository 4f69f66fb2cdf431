"""Where each average pool goes: folded into the layers that take it, or a stage of its own.

Folded, its mean becomes part of their kernels (`pool_folding`). As a stage it stays in the
program and is lowered to a population that sums each window; the 1/k^2 goes into the value of
its spikes. Both are exact; folding saves a layer and a step of latency, a stage saves weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from math import prod

from toolchain.conversion.passes.graph_editor import GraphEditor, spiking_values
from toolchain.conversion.passes.pool_folding import (
    pool_as_conv,
    pool_into_conv,
    pool_into_dense,
    pool_into_pool,
)
from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Input,
    Linear,
)
from toolchain.program.neurons import Relay

POOLING = ("auto", "fold", "stage")
"""`fold`: always into the layers behind, or an error. `stage`: always a stage, or an error.
`auto`: folded where that is exact and makes no dense layer of more than `MOST_WEIGHTS`, else a
stage."""
MOST_WEIGHTS = 1 << 24
"""A pool over 7x7 in front of 1000 classes would make 49 times the weights, a hundred million
behind ResNet50; the stage costs a step of latency instead."""


def place_average_pools(
    program: FloatProgram, pooling: str
) -> tuple[FloatProgram, tuple[str, ...]]:
    """Fold average pools, or keep them as stages, by `pooling` (see `POOLING`).

    Returns
    -------
    The program, in which a pool that is left is a stage, and a note for each pool that `auto`
    did not fold. A pool on the network's input is always folded: it has no spikes to sum.

    Raises
    ------
    ConversionError
        If `pooling` is none of the three.
    UnsupportedModuleError
        Naming a pool that can go nowhere, and why.
    """
    if pooling not in POOLING:
        raise ConversionError("no such pooling", found=pooling, allowed=", ".join(POOLING))
    draft = GraphEditor(program)
    notes: list[str] = []
    pools = [n.name for n in draft.nodes() if isinstance(n, AvgPool2d)]
    for name in reversed(pools):
        pool = draft.node(name)
        if not isinstance(pool, AvgPool2d):
            raise TypeError(type(pool))
        on_input = isinstance(_pooled(draft, pool), Input)
        if pooling == "stage" and not on_input:
            _check_stage(draft, pool)
            continue
        large = None if pooling == "fold" or on_input else _large_dense_layer(draft, pool)
        if large and _can_be_stage(draft, pool):
            notes.append(f"{name}: the average pool is a stage of its own; {large}")
            continue
        try:
            _fold(draft, pool)
        except UnsupportedModuleError as error:
            if pooling == "fold" or on_input:
                raise
            _check_stage(draft, pool, error)
            notes.append(
                f"{name}: the average pool is a stage of its own, as it cannot be folded "
                f"exactly: {error.found}"
            )
    return draft.program(), tuple(reversed(notes))


def _large_dense_layer(draft: GraphEditor, pool: AvgPool2d) -> str:
    """Says which dense layer folding would give more than `MOST_WEIGHTS`; "" if none."""
    shapes = draft.shapes()
    flat = [u.name for u in draft.consumers(pool.name) if isinstance(u, Flatten)]
    for dense in (d for name in flat for d in draft.consumers(name) if isinstance(d, Linear)):
        weights = len(dense.weight) * prod(shapes[pool.source])
        if weights > MOST_WEIGHTS:
            return (
                f"folded (--pooling fold) it would give {dense.name} {weights:,} weights in place "
                f"of {dense.weight.size:,}"
            )
    return ""


def _can_be_stage(draft: GraphEditor, pool: AvgPool2d) -> bool:
    try:
        _check_stage(draft, pool)
    except UnsupportedModuleError:
        return False
    return True


def _fold(draft: GraphEditor, pool: AvgPool2d) -> None:
    """Fold `pool` into all its users, or raise and leave the draft as it was."""
    users = draft.consumers(pool.name)
    folded = [f for user in users for f in _folded(user, pool, draft)]
    if not users or pool.name in draft.outputs:
        raise _no_follower(pool, "nothing")
    for node in folded:
        draft.put(node)


@singledispatch
def _folded(user: object, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    """What takes the place of one user, and takes the pool's source; raises where none can."""
    raise _no_follower(pool, type(user).__name__)


@_folded.register
def _(user: Conv2d, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    shapes = draft.shapes()
    folded = pool_into_conv(pool, user, shapes[pool.source], shapes[pool.name])
    return [replace(folded, sources=pool.sources)]


@_folded.register
def _(user: Flatten, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    shapes = draft.shapes()
    behind = draft.consumers(user.name)
    folded: list[FloatNode] = [replace(user, sources=pool.sources)]
    for node in behind:
        if not isinstance(node, Linear):
            raise _no_follower(pool, f"{type(node).__name__} behind {user.name}")
        folded.append(pool_into_dense(pool, node, shapes[pool.source], shapes[pool.name]))
    if not behind or user.name in draft.outputs:
        raise _no_follower(pool, "nothing")
    return folded


@_folded.register
def _(user: AvgPool2d, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    return [replace(pool_into_pool(pool, user), sources=pool.sources)]


@_folded.register
def _(user: Add, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    return _as_summand(pool, draft)


@_folded.register
def _(user: Activation, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    return _as_summand(pool, draft)


def _as_summand(pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    """The pool as a convolution of the same name, in front of a sum or an activation."""
    if pool.source not in spiking_values(draft.nodes()):
        raise _no_follower(pool, "a sum or activation behind it, and no activation before it")
    return [pool_as_conv(pool, draft.shapes()[pool.source][0])]


def _no_follower(pool: AvgPool2d, found: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        "an average pool must be followed by a convolution or dense layer",
        node=pool.name,
        found=found,
        remedy="pool behind the activation, in front of the next layer",
    )


def _check_stage(
    draft: GraphEditor, pool: AvgPool2d, error: UnsupportedModuleError | None = None
) -> None:
    """Whether the pool can be a stage: it must sum a fixed number of unary or relayed spikes.

    `error` says why it could not be folded, and is raised where a pre-activation is pooled.
    """
    if pool.source not in spiking_values(draft.nodes()):
        raise error or _no_follower(pool, f"behind {pool.source}, which has no activation")
    if pool.padding != (0, 0) and not pool.count_padding:
        raise UnsupportedModuleError(
            "an average pool whose divisor changes at the border can be no stage",
            node=pool.name,
            found="it leaves the padding out of the mean",
            allowed="count_include_pad=True, or no padding",
        ) from error
    spikes = _window_spikes(draft, pool)
    if spikes > Relay.spike_limits.high:
        raise UnsupportedModuleError(
            "the sum over a window of this average pool does not fit a graded spike",
            node=pool.name,
            found=f"up to {spikes} spikes in a window"
            + (f"; it cannot be folded either: {error.found}" if error else ""),
            allowed=f"{Relay.spike_limits.high}",
            remedy="pool in front of a convolution or dense layer, into which it can be folded"
            if error
            else "fold it: --pooling auto or fold",
        ) from error


def _window_spikes(draft: GraphEditor, pool: AvgPool2d) -> int:
    """Largest sum that a stage sends in one step: the spikes of its window, stages chained."""
    spikes, node = 1, draft.node(pool.name)
    while isinstance(node, AvgPool2d):
        spikes *= prod(node.kernel)
        node = draft.node(node.source)
    return spikes


def _pooled(draft: GraphEditor, pool: AvgPool2d) -> FloatNode:
    """What the pool pools, seen through the average pools before it."""
    node = draft.node(pool.source)
    while isinstance(node, AvgPool2d):
        node = draft.node(node.source)
    return node
