"""Folding of BatchNorm into the nodes beside it; exact in real arithmetic, or an error.

- After a convolution or dense layer it scales the rows and shifts the bias.
- After a sum it goes into every operand, its offset into the first only.
- After a concatenation each operand gets the part of its channels.
- After a max pool it moves before the pool, if no gain is negative; after an average pool too.
- After spikes and before an activation or sum, or as an output, it becomes a depthwise 1x1
  convolution.
- After spikes otherwise (an activation, the input) it goes into the columns of the layers behind
  it, through flattens, average pools and, if no gain is negative, max pools. A convolution with
  padding takes the offset inside the image only, see `border`.

If the layer before it has other users, that layer is copied; the copy has the BatchNorm's name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from math import prod

import numpy as np

from toolchain.canonical import handed_over
from toolchain.conversion.passes.border import put_with_offset
from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Linear,
    MaxPool2d,
)


def fold_batch_norm(program: FloatProgram) -> FloatProgram:
    """Fold every BatchNorm into the nodes before or behind it.

    Raises
    ------
    UnsupportedModuleError
        If a BatchNorm cannot be folded exactly.
    """
    draft = GraphEditor(program)
    while True:
        norm = next((n for n in draft.nodes() if isinstance(n, BatchNorm)), None)
        if norm is None:
            return draft.program()
        if _is_term(norm, draft):
            shape = draft.shape(norm.source)
            draft.put(_diagonal(norm, shape[0], is_image=len(shape) == 3))
        elif draft.is_spiking(norm.source):
            _into_followers(norm, draft)
        else:
            _fold(draft.node(norm.source), norm, draft)


def _is_term(norm: BatchNorm, draft: GraphEditor) -> bool:
    """Whether the BatchNorm follows spikes, as a summand of a pre-activation or as an output."""
    users = draft.consumers(norm.name)
    summed = all(isinstance(u, Activation | Add | Concat) for u in users)
    read = bool(users) or norm.name in draft.outputs
    return read and summed and draft.is_spiking(norm.source)


@singledispatch
def _fold(before: object, norm: BatchNorm, draft: GraphEditor) -> None:
    """Fold `norm` into the node before it; raises if that is impossible."""
    raise UnsupportedModuleError(
        "BatchNorm can only be folded into a convolution or dense layer right before it, or a "
        "sum or concatenation of such",
        node=norm.name,
        found=f"behind {norm.source} ({type(before).__name__})",
        remedy="put it between the layer and its activation",
    )


@_fold.register
def _(before: Conv2d, norm: BatchNorm, draft: GraphEditor) -> None:
    _into_rows(before, norm, draft)


@_fold.register
def _(before: Linear, norm: BatchNorm, draft: GraphEditor) -> None:
    _into_rows(before, norm, draft)


@_fold.register
def _(before: Add, norm: BatchNorm, draft: GraphEditor) -> None:
    sources = []
    for index, source in enumerate(before.sources):
        offset = norm.offset if index == 0 else np.zeros_like(norm.offset)
        name = draft.new_name(f"{norm.name}[{index}]")
        sources.append(draft.put(BatchNorm(name, (source,), norm.gain, offset)))
    _replace(before, replace(before, sources=tuple(sources)), norm, draft)


@_fold.register
def _(before: Concat, norm: BatchNorm, draft: GraphEditor) -> None:
    sources = []
    shares = draft.shares(before)
    for index, (source, share) in enumerate(zip(before.sources, shares, strict=True)):
        name = draft.new_name(f"{norm.name}[{index}]")
        part = BatchNorm(name, (source,), norm.gain[share], norm.offset[share])
        sources.append(draft.put(part))
    _replace(before, replace(before, sources=tuple(sources)), norm, draft)


@_fold.register
def _(before: AvgPool2d, norm: BatchNorm, draft: GraphEditor) -> None:
    if any(before.padding) and before.count_padding and norm.offset.any():
        raise UnsupportedModuleError(
            "BatchNorm cannot change places with the average pool before it, which counts zeros",
            node=norm.name,
            found=f"behind {before.name}, with padding {before.padding}",
            allowed="a pool without padding, or with count_include_pad=False",
        )
    inner = draft.put(replace(norm, name=draft.new_name(f"{norm.name}[0]"), sources=before.sources))
    _replace(before, replace(before, sources=(inner,)), norm, draft)


@_fold.register
def _(before: MaxPool2d, norm: BatchNorm, draft: GraphEditor) -> None:
    if (norm.gain < 0).any():
        raise UnsupportedModuleError(
            "BatchNorm with a negative gain cannot change places with the max pool before it",
            node=norm.name,
            found=f"{int((norm.gain < 0).sum())} negative gains, the first in channel "
            f"{int(np.argmax(norm.gain < 0))}, behind {before.name}",
            allowed="gains >= 0",
            remedy="put it between the layer and the pool, and train again",
        )
    inner = draft.new_name(f"{norm.name}[0]")
    draft.put(replace(norm, name=inner, sources=before.sources))
    _replace(before, replace(before, sources=(inner,)), norm, draft)


def _into_rows(before: Conv2d | Linear, norm: BatchNorm, draft: GraphEditor) -> None:
    rows = norm.gain.reshape(-1, *([1] * (before.weight.ndim - 1)))
    bias = before.bias * norm.gain + norm.offset
    weight = handed_over(before.weight * rows)
    _replace(before, replace(before, weight=weight, bias=bias), norm, draft)


def _replace(before: FloatNode, folded: FloatNode, norm: BatchNorm, draft: GraphEditor) -> None:
    """Put `folded`, made from `before`, in the place of `norm`."""
    if draft.is_shared(before.name):
        draft.put(replace(folded, name=norm.name))
        return
    draft.put(folded)
    draft.redirect(norm.name, folded.name)


def _diagonal(norm: BatchNorm, channels: int, is_image: bool) -> Conv2d | Linear:
    """The BatchNorm as a linear layer with one weight per channel."""
    gain = np.broadcast_to(norm.gain, (channels,))
    offset = np.broadcast_to(norm.offset, (channels,))
    if not is_image:
        return Linear(norm.name, norm.sources, np.diag(gain), offset)
    weight = gain.reshape(-1, 1, 1, 1)
    return Conv2d(norm.name, norm.sources, weight, offset, (1, 1), (0, 0), (1, 1), channels)


def _into_followers(norm: BatchNorm, draft: GraphEditor) -> None:
    """Fold `norm`, which follows spikes, into all nodes that take it."""
    users = draft.consumers(norm.name)
    if norm.name in draft.outputs or not users:
        raise _no_follower(norm, "the network returns it")
    for user in users:
        _fold_back(user, norm, draft)


@singledispatch
def _fold_back(user: object, norm: BatchNorm, draft: GraphEditor) -> None:
    """Fold `norm` into a node behind it, or move it behind that node; raises if impossible."""
    raise _no_follower(norm, f"taken by {getattr(user, 'name', '')} ({type(user).__name__})")


@_fold_back.register
def _(user: Linear, norm: BatchNorm, draft: GraphEditor) -> None:
    bias = user.bias + user.weight @ np.broadcast_to(norm.offset, user.weight.shape[1])
    weight = handed_over(user.weight * norm.gain)
    draft.put(replace(user, sources=norm.sources, weight=weight, bias=bias))


@_fold_back.register
def _(user: BatchNorm, norm: BatchNorm, draft: GraphEditor) -> None:
    gain, offset = norm.gain * user.gain, norm.offset * user.gain + user.offset
    draft.put(replace(user, sources=norm.sources, gain=gain, offset=offset))


@_fold_back.register
def _(user: Conv2d, norm: BatchNorm, draft: GraphEditor) -> None:
    channels = user.groups * user.weight.shape[1]
    gain, offset = (np.broadcast_to(v, channels) for v in (norm.gain, norm.offset))
    weight = user.weight.reshape(user.groups, -1, *user.weight.shape[1:])
    scaled = handed_over(
        (weight * gain.reshape(user.groups, 1, -1, 1, 1)).reshape(user.weight.shape)
    )
    conv = replace(user, sources=norm.sources, weight=scaled)
    put_with_offset(conv, user, offset, draft.shape(norm.name), draft)


@_fold_back.register
def _(user: Flatten, norm: BatchNorm, draft: GraphEditor) -> None:
    channels, *image = draft.shape(norm.source)
    each = [np.repeat(np.broadcast_to(v, channels), prod(image)) for v in (norm.gain, norm.offset)]
    _behind(user, norm, draft, *each)


@_fold_back.register
def _(user: AvgPool2d, norm: BatchNorm, draft: GraphEditor) -> None:
    if any(user.padding) and user.count_padding and norm.offset.any():
        raise _no_follower(norm, f"{user.name} pads with zeros, to which the offset is not added")
    _behind(user, norm, draft, norm.gain, norm.offset)


@_fold_back.register
def _(user: MaxPool2d, norm: BatchNorm, draft: GraphEditor) -> None:
    if (norm.gain < 0).any():
        raise _no_follower(norm, f"a negative gain, and the max pool {user.name} behind it")
    _behind(user, norm, draft, norm.gain, norm.offset)


def _behind(
    user: Flatten | AvgPool2d | MaxPool2d,
    norm: BatchNorm,
    draft: GraphEditor,
    gain: np.ndarray,
    offset: np.ndarray,
) -> None:
    """Let `norm`, with these values, change places with `user`."""
    moved = BatchNorm(draft.new_name(norm.name), (user.name,), gain, offset)
    draft.put(moved)
    draft.redirect(user.name, moved.name)
    draft.put(replace(user, sources=norm.sources))


def _no_follower(norm: BatchNorm, found: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        "this BatchNorm or constant behind spikes cannot be folded into the layers that take it",
        node=norm.name,
        found=found,
        allowed="dense layers, convolutions, and pools and flattens before these",
        remedy="put it between a layer and its activation; arithmetic on the input belongs to the "
        "data: mean= and std= for (x - mean) / std, input_range= for the values samples take",
    )
