"""Merging of linear layers without an activation between them; exact in real arithmetic.

- Two convolutions or dense layers in a row become one, whose weights are the product of theirs.
- A layer that reads a sum with linear summands reads each summand by itself: `W (a + b) = W a +
  W b`, and is merged with each.
- An average pool of a convolution with a 1x1 kernel changes places with it; of any other
  convolution it becomes part of the kernel.

A convolution that pads can only be merged with a layer before it whose output there would be its
bias: a 1x1 kernel. What the bias adds inside the image, but not there, is left to `border`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TypeGuard

import numpy as np
import torch
from torch.nn import functional as F

from toolchain.canonical import handed_over
from toolchain.conversion.passes.average_pools import MOST_WEIGHTS
from toolchain.conversion.passes.border import offset_kernel, put_inside
from toolchain.conversion.passes.concatenations import ungrouped
from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.pool_folding import pool_as_conv
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Add,
    AvgPool2d,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Linear,
    Shape,
)

_LINEAR = (Conv2d, Linear, AvgPool2d, Flatten)


def merge_linear_chains(program: FloatProgram) -> tuple[FloatProgram, tuple[str, ...]]:
    """Merge linear layers that follow each other, and a note on each merged pair of layers.

    Raises
    ------
    UnsupportedModuleError
        If two layers cannot be merged exactly, or the result has more than `MOST_WEIGHTS` weights.
    """
    draft = GraphEditor(program)
    notes: list[str] = []
    for node in draft.nodes():
        if draft.is_used(node.name):
            _settle(node.name, draft, notes)
    return draft.program(), tuple(notes)


def _settle(name: str, draft: GraphEditor, notes: list[str]) -> None:
    """Merge a node with what it reads, until nothing before it can be merged."""
    while _can_merge(node := draft.node(name), draft):
        before = draft.node(node.source)
        if isinstance(before, Add):
            draft.spread(node, before)
        elif isinstance(node, AvgPool2d):
            _pool(node, before, draft)
        else:
            notes += _merge(node, before, draft)
        for source in draft.node(name).sources:  # those that this has made
            _settle(source, draft, notes)


def _sends(name: str, draft: GraphEditor) -> bool:
    """Whether a node sends spikes, or is a sum of such, which can be a stage (see `place_sums`)."""
    node = draft.node(name)
    if isinstance(node, Add):
        return all(_sends(source, draft) for source in node.sources)
    return draft.is_spiking(name)


def _can_merge(
    node: FloatNode, draft: GraphEditor
) -> TypeGuard[Conv2d | Linear | AvgPool2d | Flatten]:
    """Whether `node` is linear and reads a linear layer, or a sum of such."""
    if not isinstance(node, _LINEAR) or _sends(node.source, draft):
        return False
    before = draft.node(node.source)
    if isinstance(node, Flatten):
        return isinstance(before, Add)
    if isinstance(before, Flatten) and not _sends(before.source, draft):
        return isinstance(draft.node(before.source), Conv2d)
    return isinstance(before, Conv2d | Linear | Add)


def _pool(pool: AvgPool2d, before: FloatNode, draft: GraphEditor) -> None:
    if not isinstance(before, Conv2d):
        raise TypeError(type(before))
    pointwise = before.weight.shape[2:] == (1, 1) and before.padding == (0, 0)
    if pointwise and before.stride == (1, 1) and (pool.padding == (0, 0) or not before.bias.any()):
        inner = draft.put(
            replace(pool, name=draft.new_name(f"{pool.name}[0]"), sources=before.sources)
        )
        draft.put(replace(before, name=pool.name, sources=(inner,)))
        return
    conv = pool_as_conv(pool, draft.shape(pool.source)[0])
    _put_product(conv, before, draft)


def _merge(node: FloatNode, before: FloatNode, draft: GraphEditor) -> list[str]:
    """Replace `node` by its product with the layer before it; a note if that layer has weights."""
    if isinstance(node, Linear) and isinstance(before, Flatten):
        flat, before = before, draft.node(before.source)
        if not isinstance(before, Conv2d):
            raise TypeError(type(before))
        merged: Conv2d | Linear = _dense_of_convolution(
            node, before, draft.shape(before.source), draft.shape(before.name)
        )
        name = draft.new_name(f"{flat.name}[0]")
        merged = replace(merged, sources=(draft.put(Flatten(name, before.sources)),))
    elif isinstance(node, Linear) and isinstance(before, Linear):
        _check_size(node, before, len(node.weight) * before.weight.shape[1])
        weight = handed_over(node.weight @ before.weight)
        bias = node.bias + node.weight @ before.bias
        merged = replace(node, sources=before.sources, weight=weight, bias=bias)
    elif isinstance(node, Conv2d) and isinstance(before, Conv2d):
        merged = _put_product(node, before, draft)
    else:
        raise TypeError(type(node), type(before))
    if isinstance(merged, Linear):
        draft.put(merged)
    if isinstance(before, Conv2d | Linear) and not _selects(before):
        return [
            f"{node.name}: merged with {before.name} before it, since no activation stands between "
            f"them: {merged.weight.size:,} weights"
        ]
    return []


def _selects(layer: Conv2d | Linear) -> bool:
    """Whether a layer only selects values: each row holds at most a single one."""
    rows = layer.weight.reshape(len(layer.weight), -1)
    ones = (rows == 1).sum(1)
    return bool(((rows != 0).sum(1) == ones).all() and (ones <= 1).all() and not layer.bias.any())


def _check_size(node: FloatNode, before: FloatNode, weights: int) -> None:
    if weights > MOST_WEIGHTS:
        raise UnsupportedModuleError(
            "two linear layers without an activation between them are too large to be merged",
            node=node.name,
            found=f"{weights:,} weights in one layer, with {before.name} before it",
            allowed=f"{MOST_WEIGHTS:,}",
            remedy="put a quantized activation between them",
        )


def _put_product(second: Conv2d, first: Conv2d, draft: GraphEditor) -> Conv2d:
    """Put and return the convolution that computes `first` and then `second`."""
    kernel = offset_kernel(second, first.bias)
    merged = replace(_of_convolutions(second, first), bias=second.bias + kernel.sum((1, 2, 3)))
    put_inside(merged, kernel * any(second.padding), draft)
    return merged


def _of_convolutions(second: Conv2d, first: Conv2d) -> Conv2d:
    """The convolution that computes `first`, but for its bias, and then `second`.

    Tap j of `second` reads output d2 j of `first`, whose tap i reads input s1 d2 j + d1 i.
    """
    pointwise = first.weight.shape[2:] == (1, 1) and first.padding == (0, 0)
    if any(second.padding) and not pointwise:
        raise UnsupportedModuleError(
            "two linear layers without an activation between them, of which the second pads",
            node=second.name,
            found=f"{first.name} before it, whose output would be another beyond the border",
            remedy="put a quantized activation between them, or leave the padding out",
        )
    inner, outer = ungrouped(first).weight, ungrouped(second).weight
    steps = [(first.stride[axis] * second.dilation[axis], first.dilation[axis]) for axis in (0, 1)]
    # A kernel of one tap leaves the other's spacing as the dilation of the product.
    dilations = tuple(
        step if inner.shape[2 + axis] == 1 else own if outer.shape[2 + axis] == 1 else 1
        for axis, (step, own) in enumerate(steps)
    )
    sizes = [
        (step * (outer.shape[2 + axis] - 1) + own * (inner.shape[2 + axis] - 1)) // dilations[axis]
        + 1
        for axis, (step, own) in enumerate(steps)
    ]
    _check_size(second, first, len(outer) * inner.shape[1] * prod(sizes))
    weight = np.zeros((len(outer), inner.shape[1], *sizes))
    for row, column in np.ndindex(*outer.shape[2:]):
        product = np.tensordot(outer[:, :, row, column], inner, axes=1)
        for i, j in np.ndindex(*inner.shape[2:]):
            y = (steps[0][0] * row + steps[0][1] * i) // dilations[0]
            x = (steps[1][0] * column + steps[1][1] * j) // dilations[1]
            weight[:, :, y, x] += product[:, :, i, j]
    return Conv2d(
        second.name,
        first.sources,
        handed_over(weight),
        second.bias,
        (first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        (
            first.padding[0] + first.stride[0] * second.padding[0],
            first.padding[1] + first.stride[1] * second.padding[1],
        ),
        (dilations[0], dilations[1]),
        1,
    )


def _dense_of_convolution(dense: Linear, conv: Conv2d, source: Shape, image: Shape) -> Linear:
    """The dense layer that computes `conv` of the flattened `source`, and then `dense`."""
    _check_size(dense, conv, len(dense.weight) * prod(source))
    rows = torch.from_numpy(dense.weight.reshape(-1, *image).copy())
    kernel = torch.from_numpy(conv.weight.copy())
    axes = zip(source[1:], image[1:], conv.stride, conv.padding, conv.dilation, strict=True)
    unread = [  # rows and columns behind the last window, which torch asks for
        size + 2 * padding - dilation * (taps - 1) - 1 - stride * (count - 1)
        for taps, (size, count, stride, padding, dilation) in zip(
            kernel.shape[2:], axes, strict=True
        )
    ]
    spread = F.conv_transpose2d(
        rows, kernel, None, conv.stride, conv.padding, unread, conv.groups, conv.dilation
    )
    bias = dense.bias + rows.sum((2, 3)).numpy() @ conv.bias
    return replace(dense, weight=spread.reshape(len(dense.weight), -1).numpy(), bias=bias)
