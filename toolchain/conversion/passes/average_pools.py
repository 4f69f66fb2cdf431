"""Placement of average pools: folded into the following layers, or a stage of their own.

A folded pool becomes part of the following kernels (`pool_folding`). A stage stays in the
program and becomes a population that sums each window; the factor 1/k^2 goes into the value of
its spikes. Where windows have different divisors, further populations add what the windows at the
border lack (`window_sums`). All are exact. Folding saves a layer and a step of latency; a stage
saves weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from math import prod

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.layers import mean_layers
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
"""Choices for average pools.

`fold`: always into the following layers, or an error. `stage`: always a stage, or an error.
`auto`: folded if that is exact and makes no dense layer of more than `MOST_WEIGHTS`, else a stage.
"""
MOST_WEIGHTS = 1 << 24
"""Largest number of weights of a dense layer into which `auto` folds a pool.

A 7x7 pool before 1000 classes would multiply the weights by 49, to a hundred million after
ResNet50; the stage costs a step of latency instead.
"""


def place_average_pools(
    program: FloatProgram, pooling: str
) -> tuple[FloatProgram, tuple[str, ...]]:
    """Fold average pools, or keep them as stages, by `pooling` (see `POOLING`).

    Returns
    -------
    The program, in which every remaining pool is a stage, and a note for each pool that `auto`
    did not fold. A pool of the network's input is always folded: there are no spikes to sum.

    Raises
    ------
    ConversionError
        If `pooling` is not in `POOLING`.
    UnsupportedModuleError
        If a pool can be neither folded nor a stage. The error names the pool and the reason.
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
    """A note on the dense layer that folding would give more than `MOST_WEIGHTS`; "" if none."""
    flat = [u.name for u in draft.consumers(pool.name) if isinstance(u, Flatten)]
    for dense in (d for name in flat for d in draft.consumers(name) if isinstance(d, Linear)):
        weights = len(dense.weight) * prod(draft.shape(pool.source))
        if weights > MOST_WEIGHTS:
            return (
                f'folded (pooling="fold") it would give {dense.name} {weights:,} weights in place '
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
    """Fold `pool` into all its users, or raise and leave the draft unchanged."""
    users = draft.consumers(pool.name)
    if not users and pool.name in draft.outputs:
        draft.put(*_as_summand(pool, draft))
        return
    folded = [f for user in users for f in _folded(user, pool, draft)]
    if not users or pool.name in draft.outputs:
        raise _no_follower(pool, "nothing")
    for node in folded:
        draft.put(node)


@singledispatch
def _folded(user: object, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    """The nodes that replace one user and take the pool's source; raises if that is impossible."""
    raise _no_follower(pool, type(user).__name__)


@_folded.register
def _(user: Conv2d, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    folded = pool_into_conv(pool, user, draft.shape(pool.source), draft.shape(pool.name))
    return [replace(folded, sources=pool.sources)]


@_folded.register
def _(user: Flatten, pool: AvgPool2d, draft: GraphEditor) -> list[FloatNode]:
    source, pooled = draft.shape(pool.source), draft.shape(pool.name)
    behind = draft.consumers(user.name)
    folded: list[FloatNode] = [replace(user, sources=pool.sources)]
    for node in behind:
        if not isinstance(node, Linear):
            raise _no_follower(pool, f"{type(node).__name__} behind {user.name}")
        folded.append(pool_into_dense(pool, node, source, pooled))
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
    """The pool as a convolution of the same name, before a sum or an activation."""
    if not draft.is_spiking(pool.source):
        raise _no_follower(pool, "a sum or activation behind it, and no activation before it")
    return [pool_as_conv(pool, draft.shape(pool.source)[0])]


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
    """Raise an error unless the pool sums unary or relayed spikes, and its sums fit their range.

    `error` says why the pool could not be folded; it is raised if a pre-activation is pooled.
    """
    if not draft.is_spiking(pool.source):
        raise error or _no_follower(pool, f"behind {pool.source}, which has no activation")
    spikes = _largest_sum(draft, pool.name)
    if spikes > Relay.spike_limits.high:
        raise UnsupportedModuleError(
            "the sum over a window of this average pool does not fit a graded spike",
            node=pool.name,
            found=f"up to {spikes} spikes in a window"
            + (", of which some count several times: " + pool.uneven if pool.uneven else "")
            + (f"; it cannot be folded either: {error.found}" if error else ""),
            allowed=f"{Relay.spike_limits.high}",
            remedy="pool in front of a convolution or dense layer, into which it can be folded"
            if error
            else 'fold it: pooling="auto", or pooling="fold"',
        ) from error


def _largest_sum(draft: GraphEditor, name: str) -> int:
    """Largest spike of a node in one step: of a stage, the sum over a window of what it pools."""
    pool = draft.node(name)
    if not isinstance(pool, AvgPool2d):
        return 1
    largest = {pool.source: _largest_sum(draft, pool.source)}
    for layer in mean_layers(pool, pool.source, draft.shape(pool.source)):
        largest[layer.name] = layer.most(largest)
    return largest[name]


def _pooled(draft: GraphEditor, pool: AvgPool2d) -> FloatNode:
    """The node whose values are pooled, before all average pools in a row."""
    node = draft.node(pool.source)
    while isinstance(node, AvgPool2d):
        node = draft.node(node.source)
    return node
