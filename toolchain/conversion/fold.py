"""Passes over the float program: BatchNorm and average pools disappear into their neighbours.

Each is exact in real arithmetic or an error: BatchNorm behind a convolution or dense layer
scales its rows; an average pool in front of one becomes a larger, upsampled kernel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Input,
    Linear,
    Shape,
)


def fold_batch_norm(program: FloatProgram) -> FloatProgram:
    """Fold every BatchNorm into the convolution or dense layer right before it.

    Raises
    ------
    UnsupportedModuleError
        If a BatchNorm stands elsewhere, or that layer is also used by others.
    """
    while True:
        norm = next((n for n in program.nodes if isinstance(n, BatchNorm)), None)
        if norm is None:
            return program
        before = program.node(norm.source)
        if not isinstance(before, Conv2d | Linear) or len(program.consumers(before.name)) > 1:
            raise UnsupportedModuleError(
                "BatchNorm can only be folded into a convolution or dense layer right before it",
                node=norm.name,
                found=f"behind {before.name} ({type(before).__name__})",
                remedy="put it between the layer and its activation",
            )
        rows = norm.gain.reshape(-1, *([1] * (before.weight.ndim - 1)))
        folded = replace(
            before, weight=before.weight * rows, bias=before.bias * norm.gain + norm.offset
        )
        program = _replace(program, before, folded, drop=norm)


def fold_average_pool(program: FloatProgram) -> FloatProgram:
    """Fold every average pool into the convolution or dense layer that follows.

    Raises
    ------
    UnsupportedModuleError
        If it is followed by something else, or folding would not be exact at the border.
    """
    while True:
        pool = next((n for n in program.nodes if isinstance(n, AvgPool2d)), None)
        if pool is None:
            return program
        shapes = program.shapes()
        source, pooled = shapes[pool.source], shapes[pool.name]
        follower, flatten = _follower(program, pool)
        if isinstance(follower, Linear):
            folded: FloatNode = _pool_into_dense(pool, follower, source, pooled)
        elif isinstance(follower, Conv2d) and flatten is None:
            folded = _pool_into_conv(pool, follower, source, pooled)
        elif isinstance(follower, AvgPool2d) and flatten is None:
            folded = _pool_into_pool(pool, follower)
        else:
            raise UnsupportedModuleError(
                "an average pool must be followed by a convolution or dense layer",
                node=pool.name,
                found="nothing" if follower is None else type(follower).__name__,
                remedy="pool behind the activation, in front of the next layer",
            )
        if follower is None:
            raise TypeError("unreachable: a folded pool has a follower")
        program = _replace(program, follower, folded, drop=pool)


def _follower(program: FloatProgram, pool: AvgPool2d) -> tuple[FloatNode | None, Flatten | None]:
    """The one node that uses the pool, looking through a Flatten."""
    flatten: Flatten | None = None
    consumers = program.consumers(pool.name)
    if len(consumers) == 1 and isinstance(consumers[0], Flatten):
        flatten = consumers[0]
        consumers = program.consumers(flatten.name)
    return (consumers[0] if len(consumers) == 1 else None), flatten


def _window_weights(pool: AvgPool2d, source: Shape, pooled: Shape, axis: int) -> np.ndarray:
    """(pooled, source) matrix along one axis with a 1 where a window covers a source element."""
    size, count = source[1 + axis], pooled[1 + axis]
    matrix = np.zeros((count, size))
    for index in range(count):
        start = index * pool.stride[axis] - pool.padding[axis]
        matrix[index, max(start, 0) : min(start + pool.kernel[axis], size)] = 1.0
    return matrix


def _pool_into_dense(pool: AvgPool2d, dense: Linear, source: Shape, pooled: Shape) -> Linear:
    rows = _window_weights(pool, source, pooled, 0)
    columns = _window_weights(pool, source, pooled, 1)
    if pool.count_padding:
        area: np.ndarray | float = float(pool.kernel[0] * pool.kernel[1])
    else:
        area = rows.sum(1)[:, None] * columns.sum(1)[None, :]
    weight = dense.weight.reshape(-1, *pooled) / area
    spread = np.einsum("fcpq,ph,qw->fchw", weight, rows, columns)
    return replace(dense, weight=spread.reshape(len(spread), -1))


def _pool_into_conv(pool: AvgPool2d, conv: Conv2d, source: Shape, pooled: Shape) -> Conv2d:
    for axis in range(2):
        _check_border(pool, conv, source, pooled, axis)
    c_out, c_in, k_h, k_w = conv.weight.shape
    reach = [
        pool.stride[a] * conv.dilation[a] * (conv.weight.shape[2 + a] - 1) + pool.kernel[a]
        for a in range(2)
    ]
    kernel = np.zeros((c_out, c_in, reach[0], reach[1]))
    for i in range(k_h):
        for j in range(k_w):
            top = i * pool.stride[0] * conv.dilation[0]
            left = j * pool.stride[1] * conv.dilation[1]
            window = kernel[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]]
            window += conv.weight[:, :, i, j, None, None]
    return replace(
        conv,
        weight=kernel / (pool.kernel[0] * pool.kernel[1]),
        stride=(conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1]),
        padding=(
            conv.padding[0] * pool.stride[0] + pool.padding[0],
            conv.padding[1] * pool.stride[1] + pool.padding[1],
        ),
        dilation=(1, 1),
    )


def _check_border(pool: AvgPool2d, conv: Conv2d, source: Shape, pooled: Shape, axis: int) -> None:
    """The convolution's zero padding must not, once folded, reach real source elements."""
    size, count = source[1 + axis], pooled[1 + axis]
    if pool.padding[axis] and not pool.count_padding:
        reason = "it leaves the padding out of the mean"
    elif conv.padding[axis] and pool.kernel[axis] > pool.stride[axis] + pool.padding[axis]:
        reason = "its windows overlap and the convolution pads"
    elif conv.padding[axis] and count * pool.stride[axis] - pool.padding[axis] < size:
        reason = f"it drops the last of {size} rows or columns and the convolution pads"
    else:
        # The folded kernel may ask for a position the convolution did not compute.
        width = conv.dilation[axis] * (conv.weight.shape[2 + axis] - 1) + 1
        expected = (count + 2 * conv.padding[axis] - width) // conv.stride[axis] + 1
        reach = pool.stride[axis] * (width - 1) + pool.kernel[axis]
        padding = conv.padding[axis] * pool.stride[axis] + pool.padding[axis]
        stride = conv.stride[axis] * pool.stride[axis]
        if (size + 2 * padding - reach) // stride + 1 == expected:
            return
        reason = "the folded kernel would give another output size"
    raise UnsupportedModuleError(
        "this average pool cannot be folded exactly into the convolution that follows",
        node=pool.name,
        found=reason,
        allowed="windows that tile their input, or a convolution without padding",
        remedy="choose an input size that the pool divides",
    )


def _pool_into_pool(pool: AvgPool2d, follower: AvgPool2d) -> AvgPool2d:
    plain = pool.padding == (0, 0) and follower.padding == (0, 0) and pool.kernel == pool.stride
    if not plain:
        raise UnsupportedModuleError(
            "two average pools in a row can only be joined without padding and overlap",
            node=pool.name,
        )
    return replace(
        follower,
        kernel=(pool.kernel[0] * follower.kernel[0], pool.kernel[1] * follower.kernel[1]),
        stride=(pool.stride[0] * follower.stride[0], pool.stride[1] * follower.stride[1]),
    )


def _replace(
    program: FloatProgram, old: FloatNode, new: FloatNode, drop: FloatNode
) -> FloatProgram:
    """A program with `new` in place of `old`, and without `drop`, whose users take its source."""
    nodes = []
    for node in program.nodes:
        if node is drop:
            continue
        kept = new if node is old else node
        if kept.source == drop.name and not isinstance(kept, Input):
            kept = replace(kept, source=drop.source)
        nodes.append(kept)
    return FloatProgram(tuple(nodes))
