"""Removal of concatenations: the layers after one are split by its channel ranges.

- A convolution or dense layer becomes the sum of its parts, one per operand. With groups
  whose borders are those of the operands, it becomes the concatenation of smaller convolutions.
- Activations and pools work channel by channel, so each operand gets its own.
- As a summand, each operand is placed in the full range of channels, with zeros elsewhere.

All steps are exact. A part has the name `LAYER[i]`, where i is the index of the operand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import numpy as np

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Linear,
    MaxPool2d,
)


def split_concatenations(program: FloatProgram) -> FloatProgram:
    """Rewrite the users of every concatenation until no concatenation is left.

    Raises
    ------
    UnsupportedModuleError
        If anything other than linear layers, activations and pools follows a concatenation.
    """
    draft = GraphEditor(program)
    while True:
        concat = next((n for n in draft.nodes() if isinstance(n, Concat)), None)
        if concat is None:
            return draft.program()
        if concat.name in draft.outputs:
            draft.put(_embedded(concat, draft))
        for user in draft.consumers(concat.name):
            _push(user, concat, draft)


@singledispatch
def _push(user: object, concat: Concat, draft: GraphEditor) -> None:
    """Rewrite one user of `concat` so that it no longer needs it; raises for an unknown one."""
    raise UnsupportedModuleError(
        "no way to split what follows a concatenation",
        node=concat.name,
        found=type(user).__name__,
    )


@_push.register
def _(user: Concat, concat: Concat, draft: GraphEditor) -> None:
    sources = [concat.sources if s == concat.name else (s,) for s in user.sources]
    draft.put(replace(user, sources=tuple(s for group in sources for s in group)))


@_push.register
def _(user: Flatten, concat: Concat, draft: GraphEditor) -> None:
    parts = [
        s
        if len(draft.shape(s)) == 1
        else draft.put(Flatten(draft.new_name(f"{user.name}[{i}]"), (s,)))
        for i, s in enumerate(concat.sources)
    ]
    draft.put(Concat(user.name, tuple(parts)))


@_push.register
def _(user: MaxPool2d, concat: Concat, draft: GraphEditor) -> None:
    _each(user, concat, draft)


@_push.register
def _(user: AvgPool2d, concat: Concat, draft: GraphEditor) -> None:
    _each(user, concat, draft)


@_push.register
def _(user: Activation, concat: Concat, draft: GraphEditor) -> None:
    parts = []
    for index, (source, share) in enumerate(zip(concat.sources, draft.shares(concat), strict=True)):
        threshold = user.threshold if user.threshold.size == 1 else user.threshold[share]
        name = draft.new_name(f"{user.name}[{index}]")
        parts.append(draft.put(replace(user, name=name, sources=(source,), threshold=threshold)))
    draft.put(Concat(user.name, tuple(parts)))


@_push.register
def _(user: Linear, concat: Concat, draft: GraphEditor) -> None:
    parts = []
    for index, (source, share) in enumerate(zip(concat.sources, draft.shares(concat), strict=True)):
        name = draft.new_name(f"{user.name}[{index}]")
        bias = user.bias if index == 0 else np.zeros_like(user.bias)
        parts.append(draft.put(Linear(name, (source,), user.weight[:, share], bias)))
    draft.put(Add(user.name, tuple(parts)))


@_push.register
def _(user: Conv2d, concat: Concat, draft: GraphEditor) -> None:
    channels = [draft.shape(s)[0] for s in concat.sources]
    width = user.weight.shape[1]
    if user.groups > 1 and all(c % width == 0 for c in channels):
        _push_by_groups(user, concat, draft, [c // width for c in channels])
        return
    whole = ungrouped(user)
    parts = []
    for index, (source, share) in enumerate(zip(concat.sources, draft.shares(concat), strict=True)):
        part = replace(
            whole,
            name=draft.new_name(f"{user.name}[{index}]"),
            sources=(source,),
            weight=whole.weight[:, share],
            bias=user.bias if index == 0 else np.zeros_like(user.bias),
        )
        parts.append(draft.put(part))
    draft.put(Add(user.name, tuple(parts)))


def _push_by_groups(user: Conv2d, concat: Concat, draft: GraphEditor, groups: list[int]) -> None:
    """Split a convolution whose groups take no inputs from two operands."""
    height = len(user.weight) // user.groups
    parts, start = [], 0
    for index, source in enumerate(concat.sources):
        rows = slice(start * height, (start + groups[index]) * height)
        start += groups[index]
        part = replace(
            user,
            name=draft.new_name(f"{user.name}[{index}]"),
            sources=(source,),
            weight=user.weight[rows],
            bias=user.bias[rows],
            groups=groups[index],
        )
        parts.append(draft.put(part))
    draft.put(Concat(user.name, tuple(parts)))


@_push.register
def _(user: Add, concat: Concat, draft: GraphEditor) -> None:
    operands = [draft.node(s) for s in user.sources]
    concats = [n for n in operands if isinstance(n, Concat)]
    ranges = {tuple(draft.shape(s)[0] for s in c.sources) for c in concats}
    if len(concats) == len(operands) and len(ranges) == 1:
        sums = [
            draft.put(Add(draft.new_name(f"{user.name}[{i}]"), tuple(column)))
            for i, column in enumerate(zip(*(c.sources for c in concats), strict=True))
        ]
        draft.put(Concat(user.name, tuple(sums)))
        return
    embedded = _embedded(concat, draft)
    sources = [embedded.sources if s == concat.name else (s,) for s in user.sources]
    draft.put(replace(user, sources=tuple(s for group in sources for s in group)))


def _each(user: MaxPool2d | AvgPool2d, concat: Concat, draft: GraphEditor) -> None:
    """Give each operand its own pool, in place of one pool of all channels."""
    parts = [
        draft.put(replace(user, name=draft.new_name(f"{user.name}[{i}]"), sources=(s,)))
        for i, s in enumerate(concat.sources)
    ]
    draft.put(Concat(user.name, tuple(parts)))


def ungrouped(conv: Conv2d) -> Conv2d:
    """An equal convolution with groups = 1, with zeros between the groups."""
    c_out, width = conv.weight.shape[:2]
    height = c_out // conv.groups
    weight = np.zeros((c_out, width * conv.groups, *conv.weight.shape[2:]))
    for group in range(conv.groups):
        rows = slice(group * height, (group + 1) * height)
        weight[rows, group * width : (group + 1) * width] = conv.weight[rows]
    return replace(conv, weight=weight, groups=1)


def _embedded(concat: Concat, draft: GraphEditor) -> Add:
    """The concatenation as a sum: each operand in its own channels, zeros in the others."""
    total, start, parts = draft.shape(concat.name)[0], 0, []
    for source in concat.sources:
        channels = draft.shape(source)[0]
        parts.append(_embed(draft, source, start, total, concat))
        start += channels
    return Add(concat.name, tuple(parts))


def _embed(draft: GraphEditor, name: str, start: int, total: int, concat: Concat) -> str:
    """Name of a node with the channels of `name` from `start` on, and zeros elsewhere."""
    node = draft.node(name)
    shape = draft.shape(name)
    rows = slice(start, start + shape[0])
    new_name = draft.new_name(f"{concat.name}[{name}]")
    if draft.is_spiking(name):
        weight = np.zeros((total, shape[0]))
        weight[rows] = np.eye(shape[0])
        bias = np.zeros(total)
        if len(shape) == 1:
            return draft.put(Linear(new_name, (name,), weight, bias))
        kernel = weight[:, :, None, None]
        conv = Conv2d(new_name, (name,), kernel, bias, (1, 1), (0, 0), (1, 1), 1)
        return draft.put(conv)
    if isinstance(node, Add):
        parts = tuple(_embed(draft, s, start, total, concat) for s in node.sources)
        return draft.put(Add(draft.new_name(new_name), parts))
    if isinstance(node, Conv2d | Linear):
        whole = ungrouped(node) if isinstance(node, Conv2d) else node
        weight = np.zeros((total, *whole.weight.shape[1:]))
        bias = np.zeros(total)
        weight[rows], bias[rows] = whole.weight, whole.bias
        return draft.put(replace(whole, name=new_name, weight=weight, bias=bias))
    raise _not_addable(node, concat)


def _not_addable(node: FloatNode, concat: Concat) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        "an operand of a concatenation in a sum must be linear or made of spikes",
        node=concat.name,
        found=f"{node.name} ({type(node).__name__})",
        remedy="put a quantized activation in front of the concatenation",
    )
