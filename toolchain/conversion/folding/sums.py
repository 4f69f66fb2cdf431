"""Sums of spikes that layers take as they are: residual branches with no neuron behind them.

Where all summands send spikes worth the same, such as behind CQReLU, the sum is a stage of its
own: a population that passes it on as a graded spike. Elsewhere the layers behind it are spread
over the summands, `W (a + b) = W a + W b`, with the same weights for each. Both are exact.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.conversion.folding.draft import Draft
from toolchain.conversion.layers import is_stage
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


def settle_sums(program: FloatProgram) -> FloatProgram:
    """Leave sums of equally worthy spikes as stages, and spread the users of others.

    What takes a sum and can neither, is left for the lowering to refuse.
    """
    draft = Draft(program)
    for name in [n.name for n in draft.nodes() if isinstance(n, Add)]:
        node = draft.node(name)
        if not isinstance(node, Add) or name not in {n.name for n in draft.nodes()}:
            continue
        _splice(node, draft)
        node = draft.node(name)
        assert isinstance(node, Add)
        now = draft.program()
        if is_stage(now, node) and _worth(node, draft) is None:
            for user in draft.consumers(name):
                _spread(user, node, draft)
    return draft.program()


def _splice(node: Add, draft: Draft) -> None:
    """Take the summands of inner sums, unless those are stages."""
    now = draft.program()
    sources: list[str] = []
    for source in node.sources:
        inner = draft.node(source)
        spliced = isinstance(inner, Add) and not is_stage(now, inner)
        sources.extend(inner.sources if spliced else (source,))
    draft.put(replace(node, sources=tuple(sources)))


def _worth(node: FloatNode, draft: Draft) -> np.ndarray | None:
    """Value of one spike a channel, (1,) or (C,); None where there is not one for all summands."""
    if isinstance(node, Activation):
        return node.threshold
    if isinstance(node, MaxPool2d):
        return _worth(draft.node(node.source), draft)
    if isinstance(node, AvgPool2d):
        value = _worth(draft.node(node.source), draft)
        return None if value is None else value / (node.kernel[0] * node.kernel[1])
    if isinstance(node, Flatten):
        value = _worth(draft.node(node.source), draft)
        return value if value is not None and value.size == 1 else None
    if isinstance(node, Add):
        first, *others = (_worth(draft.node(source), draft) for source in node.sources)
        same = all(v is not None and bool(np.all(v == first)) for v in others)
        return first if same else None
    return None


def _spread(user: FloatNode, node: Add, draft: Draft) -> None:
    """Let a weighted user take each summand by itself; other users are left as they are."""
    if not isinstance(user, Conv2d | Linear):
        return
    parts = []
    for index, source in enumerate(node.sources):
        bias = user.bias if index == 0 else np.zeros_like(user.bias)
        name = draft.new_name(f"{user.name}[{index}]")
        parts.append(draft.put(replace(user, name=name, sources=(source,), bias=bias)))
    draft.put(Add(user.name, tuple(parts)))
