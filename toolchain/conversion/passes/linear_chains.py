"""Merging of linear layers without an activation between them; exact in real arithmetic.

- Two convolutions or dense layers in a row become one, whose weights are the product of theirs.
- A layer that reads a sum with linear summands reads each summand by itself: `W (a + b) = W a +
  W b`, and is merged with each.
- An average pool of a convolution with a 1x1 kernel changes places with it; of any other
  convolution it becomes part of the kernel.

A convolution that reads zeros beyond the border can only be merged with a layer before it that
would give its bias there: a 1x1 kernel, a nearest upsampling, a transposed convolution without
padding. What the bias adds inside the image, but not there, is left to `border`. A layer
that upsamples or crops spikes and cannot be merged is a stage: a population that passes them on.
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
from toolchain.conversion.passes.border import put_with_offset
from toolchain.conversion.passes.concatenations import ungrouped
from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.layers import copied_channels
from toolchain.conversion.passes.pool_folding import pool_as_conv
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
    Shape,
    node_shape,
)
from toolchain.program.synapse import Pair

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
    stages: set[str] = set()
    for node in draft.nodes():
        if draft.is_used(node.name):
            _settle(node.name, draft, stages, notes)
    return draft.program(), tuple(notes)


def _settle(name: str, draft: GraphEditor, stages: set[str], notes: list[str]) -> None:
    """Merge a node with what it reads, until nothing before it can be merged.

    `stages` are the layers that stay, as they copy spikes.
    """
    while _can_merge(node := draft.node(name), draft, stages):
        before = draft.node(node.source)
        if isinstance(before, Add):
            draft.spread(node, before)
        elif isinstance(node, AvgPool2d):
            _pool(node, before, draft)
        else:
            try:
                notes += _merge(node, before, draft)
            except UnsupportedModuleError as error:
                if not _can_be_stage(before, draft):
                    raise
                stages.add(before.name)
                notes.append(
                    f"{before.name}: what it copies is a stage of its own, as it cannot be merged "
                    f"with {error.node}: {error.found}"
                )
        for source in draft.node(name).sources:  # those that this has made
            _settle(source, draft, stages, notes)


def _sends(name: str, draft: GraphEditor, stages: set[str]) -> bool:
    """Whether a node sends spikes, or is a sum of such, which can be a stage (see `place_sums`)."""
    node = draft.node(name)
    if isinstance(node, Add):
        return all(_sends(source, draft, stages) for source in node.sources)
    return name in stages or draft.is_spiking(name)


def _can_merge(
    node: FloatNode, draft: GraphEditor, stages: set[str]
) -> TypeGuard[Conv2d | Linear | AvgPool2d | Flatten]:
    """Whether `node` is linear and reads a linear layer, or a sum of such."""
    if not isinstance(node, _LINEAR) or _sends(node.source, draft, stages):
        return False
    before = draft.node(node.source)
    if isinstance(node, Flatten):
        return isinstance(before, Add)
    if isinstance(before, Flatten) and not _sends(before.source, draft, stages):
        return isinstance(draft.node(before.source), Conv2d)
    return isinstance(before, Conv2d | Linear | Add)


def _can_be_stage(node: FloatNode, draft: GraphEditor) -> bool:
    """Whether a node copies spikes of neurons, so that a population can pass them on."""
    return copied_channels(node) is not None and isinstance(
        draft.node(node.source), Activation | MaxPool2d
    )


def _pool(pool: AvgPool2d, before: FloatNode, draft: GraphEditor) -> None:
    if not isinstance(before, Conv2d):
        raise TypeError(type(before))
    pointwise = before.kernel == (1, 1) and not before.meets_zeros
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
    source = draft.shape(first.source)
    between = node_shape(first, source)
    _check_border(second, first, source, between)
    merged = _of_convolutions(second, first)
    put_with_offset(merged, second, first.bias, between, draft)
    return merged


def _check_border(second: Conv2d, first: Conv2d, source: Shape, between: Shape) -> None:
    """Raise an error if `second` reads more than the bias of `first` beyond its border."""
    for axis in range(2):
        size = between[1 + axis]
        read = _aligned(second.placed(between)[axis], second, axis, 1)
        made = _aligned(source[1 + axis], first, axis, -1)
        if (_outside(read, size)).any() and (_outside(made, size)).any():
            raise UnsupportedModuleError(
                "two linear layers without an activation between them, of which the second pads",
                node=second.name,
                found=f"{first.name} before it, whose output would be another beyond the border",
                remedy="put a quantized activation between them, or leave the padding out",
            )


def _aligned(count: int, conv: Conv2d, axis: int, direction: int) -> np.ndarray:
    """Along an axis, the inputs that `count` outputs read, or (-1) the outputs that inputs reach.

    Of an axis that has no end; of taps with weights only.
    """
    own, other = conv.stride[axis], conv.upsample[axis]
    if direction < 0:
        own, other = other, own
    taps = np.flatnonzero(conv.weight.any(axis=(0, 1, 3 - axis))) * conv.dilation[axis]
    places = np.arange(count)[:, None] * own + direction * (taps - conv.padding[axis])
    return places[places % other == 0] // other


def _outside(places: np.ndarray, size: int) -> np.ndarray:
    return (places < 0) | (places >= size)


def _of_convolutions(second: Conv2d, first: Conv2d) -> Conv2d:
    """The convolution that computes `first`, but for its bias, and then `second`.

    On the finest grid that both share, tap j of `second` reads place s1 d2 j of `first`, whose tap
    i reads u2 d1 i further; s, d, u are stride, dilation and upsample.
    """
    axes = (0, 1)
    if any(first.stride[axis] > 1 and second.upsample[axis] > 1 for axis in axes):
        raise UnsupportedModuleError(
            "a strided layer and an upsampling without an activation between them",
            node=second.name,
            found=f"stride {first.stride} of {first.name} before it",
            remedy="put a quantized activation between them",
        )
    steps = [
        (first.stride[axis] * second.dilation[axis], second.upsample[axis] * first.dilation[axis])
        for axis in axes
    ]
    # A kernel of one tap leaves the other's spacing as the dilation of the product.
    dilations = [
        step if first.kernel[axis] == 1 else own if second.kernel[axis] == 1 else 1
        for axis, (step, own) in enumerate(steps)
    ]
    sizes = [
        (step * (second.kernel[axis] - 1) + own * (first.kernel[axis] - 1)) // dilations[axis] + 1
        for axis, (step, own) in enumerate(steps)
    ]
    outer, inner, groups = _factors(second, first)
    _check_size(second, first, len(outer) * inner.shape[1] * prod(sizes))
    weight = np.zeros((len(outer), inner.shape[1], *sizes))
    for row, column in np.ndindex(*second.kernel):
        tap = outer[:, :, row, column]
        product = tap[:, :, None, None] * inner if groups else np.tensordot(tap, inner, axes=1)
        for i, j in np.ndindex(*first.kernel):
            y = (steps[0][0] * row + steps[0][1] * i) // dilations[0]
            x = (steps[1][0] * column + steps[1][1] * j) // dilations[1]
            weight[:, :, y, x] += product[:, :, i, j]

    def sides(name: str) -> Pair:
        """Zeros on one side: those of `second` between outputs of `first`, and its own."""
        down, across = (
            second.upsample[axis] * getattr(first, name)[axis]
            + first.stride[axis] * getattr(second, name)[axis]
            for axis in axes
        )
        return down, across

    return replace(
        first,
        name=second.name,
        weight=handed_over(weight),
        bias=second.bias,
        stride=(first.stride[0] * second.stride[0], first.stride[1] * second.stride[1]),
        padding=sides("padding"),
        dilation=(dilations[0], dilations[1]),
        groups=groups or 1,
        upsample=(first.upsample[0] * second.upsample[0], first.upsample[1] * second.upsample[1]),
        overhang=sides("overhang"),
    )


def _factors(second: Conv2d, first: Conv2d) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights (C_out, M, ...) and (M, C_in, ...) of two convolutions, and 0.

    Where one works on each channel alone: weights (C_out, C_in / groups or 1, ...) of both that are
    multiplied one by one, and the groups of the other.
    """
    if _is_depthwise(first):
        heights = np.arange(len(second.weight)) // (len(second.weight) // second.groups)
        width = second.weight.shape[1]
        read = heights[:, None] * width + np.arange(width)
        return second.weight, first.weight[:, 0][read], second.groups
    if _is_depthwise(second):
        return second.weight, first.weight, first.groups
    return ungrouped(second).weight, ungrouped(first).weight, 0


def _is_depthwise(conv: Conv2d) -> bool:
    return conv.weight.shape[1] == 1 and conv.groups == len(conv.weight)


def _dense_of_convolution(dense: Linear, conv: Conv2d, source: Shape, image: Shape) -> Linear:
    """The dense layer that computes `conv` of the flattened `source`, and then `dense`."""
    _check_size(dense, conv, len(dense.weight) * prod(source))
    rows = torch.from_numpy(dense.weight.reshape(-1, *image).copy())
    kernel = torch.from_numpy(conv.weight.copy())
    size, places = conv.laid_out(source)
    unread = [  # rows and columns behind the last window, which torch asks for
        size[axis]
        - conv.dilation[axis] * (conv.kernel[axis] - 1)
        - 1
        - conv.stride[axis] * (image[1 + axis] - 1)
        for axis in (0, 1)
    ]
    spread = F.conv_transpose2d(
        rows, kernel, None, conv.stride, 0, unread, conv.groups, conv.dilation
    )[..., places[0], places[1]]
    bias = dense.bias + rows.sum((2, 3)).numpy() @ conv.bias
    return replace(dense, weight=spread.reshape(len(dense.weight), -1).numpy(), bias=bias)
