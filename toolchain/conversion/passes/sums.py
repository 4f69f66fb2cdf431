"""Placement of sums of spikes that layers read directly: residual branches without a neuron.

If all summands send spikes of the same value, as after CQReLU, the sum is a stage of its
own: a population that sends it as a graded spike. Otherwise the following layers are spread
over the summands, `W (a + b) = W a + W b`, with the same weights for each. Both are exact.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import numpy as np

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.layers import is_stage
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Linear,
    MaxPool2d,
)


def place_sums(program: FloatProgram) -> FloatProgram:
    """Keep sums of spikes of equal value as stages, and spread the users of other sums.

    A sum of other values stays unchanged; the grouping into layers raises an error for it.

    Raises
    ------
    UnsupportedModuleError
        If a node that takes a sum of spikes of different values is not linear.
    """
    draft = GraphEditor(program)
    while True:
        for node in draft.nodes():
            if isinstance(node, Add):
                _splice(node, draft)
        unequal = _unequal_stage(draft)
        if unequal is None:
            return draft.program()
        for user in draft.consumers(unequal.name):
            _spread(user, unequal, draft)


def _unequal_stage(draft: GraphEditor) -> Add | None:
    """A sum of spikes that nodes read directly, and whose summands have different values."""
    stages = [n for n in draft.nodes() if isinstance(n, Add) and is_stage(draft, n)]
    names = {stage.name for stage in stages}
    for stage in stages:
        sends = (s in names or draft.is_spiking(s) for s in stage.sources)
        if all(sends) and _worth(stage, draft) is None:
            return stage
    return None


def _splice(node: Add, draft: GraphEditor) -> None:
    """Replace inner sums by their summands, unless they are stages."""
    sources: list[str] = []
    for source in node.sources:
        inner = draft.node(source)
        spliced = isinstance(inner, Add) and not is_stage(draft, inner)
        sources.extend(inner.sources if spliced else (source,))
    draft.put(replace(node, sources=tuple(sources)))


def _worth(node: FloatNode, draft: GraphEditor) -> np.ndarray | None:
    """Value of one spike per channel, (1,) or (C,); None where summands have several.

    None of a plain ReLU too, whose threshold is measured later.
    """
    if isinstance(node, Activation):
        return None if node.bound is not None else node.threshold
    if isinstance(node, MaxPool2d):
        return _worth(draft.node(node.source), draft)
    if isinstance(node, AvgPool2d):
        value = _worth(draft.node(node.source), draft)
        return None if value is None or node.uneven else value / (node.kernel[0] * node.kernel[1])
    if isinstance(node, Flatten):
        value = _worth(draft.node(node.source), draft)
        return value if value is not None and value.size == 1 else None
    if isinstance(node, Add):
        first, *others = (_worth(draft.node(source), draft) for source in node.sources)
        same = all(v is not None and bool(np.all(v == first)) for v in others)
        return first if same else None
    return None


@singledispatch
def _spread(user: object, node: Add, draft: GraphEditor) -> None:
    """Let one user take each summand separately; raises for an unknown one."""
    raise UnsupportedModuleError(
        "only linear layers can take a sum of spikes that are worth different values",
        node=node.name,
        found=f"{getattr(user, 'name', '')} ({type(user).__name__}) behind it",
        remedy="put a quantized activation behind the sum, or train with CQReLU, whose spikes are "
        "all worth the same",
    )


@_spread.register(Activation)
@_spread.register(Add)
def _(user: Activation | Add, node: Add, draft: GraphEditor) -> None:
    """Leave the node unchanged: it takes the summands as currents anyway."""


@_spread.register(Conv2d)
@_spread.register(Linear)
@_spread.register(AvgPool2d)
@_spread.register(Flatten)
def _(user: Conv2d | Linear | AvgPool2d | Flatten, node: Add, draft: GraphEditor) -> None:
    draft.spread(user, node)
