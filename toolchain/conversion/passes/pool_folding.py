"""Folding an average pool into the layer after it: exact in real arithmetic, or an error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.canonical import handed_over
from toolchain.conversion.passes.window_sums import windows_of
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import AvgPool2d, Conv2d, Linear, Shape


def _uneven_pool(pool: AvgPool2d) -> UnsupportedModuleError:
    """The error for a pool whose divisor is not the same in all windows."""
    return UnsupportedModuleError(
        "an average pool whose windows have different divisors is no convolution",
        node=pool.name,
        found=pool.uneven,
        allowed="count_include_pad=True or no padding, and windows of one size that end at the "
        "border",
        remedy='pool behind a quantized activation, with pooling="auto", which makes populations '
        "of it; a dense layer behind a Flatten, or a convolution as large as the pooled image, "
        "takes every average pool",
    )


def _window_weights(pool: AvgPool2d, source: Shape, pooled: Shape, axis: int) -> np.ndarray:
    """Matrix (pooled, source) along one axis, with a 1 where a window covers a source element."""
    places = np.arange(source[1 + axis])
    starts, stops, _ = windows_of(pool, source[1 + axis], pooled[1 + axis], axis)[..., None]
    covered: np.ndarray = ((starts <= places) & (places < stops)).astype(np.float64)
    return covered


def pool_into_dense(pool: AvgPool2d, dense: Linear, source: Shape, pooled: Shape) -> Linear:
    """The dense layer after a flattened pool, rewritten to take the flattened source.

    `source` and `pooled` are the shapes (C, H, W) before and after the pool.
    """
    spread = _of_source(dense.weight, pool, source, pooled)
    spread.shape = (len(dense.weight), -1)
    return replace(dense, weight=handed_over(spread))


def _of_source(weight: np.ndarray, pool: AvgPool2d, source: Shape, pooled: Shape) -> np.ndarray:
    """Weights of all of a pool's outputs, (..., p, q), as weights of its source: (n, h w)."""
    rows = _window_weights(pool, source, pooled, 0)
    columns = _window_weights(pool, source, pooled, 1)
    heights, widths = (windows_of(pool, source[1 + a], pooled[1 + a], a)[2] for a in range(2))
    mean = weight.reshape(-1, *pooled[1:]) / np.outer(heights, widths)
    return _spread(mean.reshape(len(mean), -1), rows, columns)


def _spread(weight: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Weights (n, p q) spread by `rows`, (p, h), and `columns`, (q, w): (n, h w)."""
    return weight @ np.kron(rows, columns)


def pool_into_conv(pool: AvgPool2d, conv: Conv2d, source: Shape, pooled: Shape) -> Conv2d:
    """The convolution after a pool, rewritten with an enlarged kernel to take the source.

    `source` and `pooled` are the shapes (C, H, W) before and after the pool.

    Raises
    ------
    UnsupportedModuleError
        If the two would differ at the border.
    """
    covers = conv.weight.shape[2:] == pooled[1:] and (conv.padding, conv.dilation) == (
        (0, 0),
        (1, 1),
    )
    if pool.uneven and covers:
        kernel = _of_source(conv.weight, pool, source, pooled)
        kernel.shape = (*conv.weight.shape[:2], *source[1:])
        return replace(conv, weight=handed_over(kernel), stride=(1, 1))
    if pool.uneven:
        raise _uneven_pool(pool)
    if not conv.is_even:
        raise UnsupportedModuleError(
            "no average pool is folded into a transposed convolution or an upsampling",
            node=pool.name,
            found=f"{conv.name} spreads what it reads",
            remedy="put a quantized activation between them",
        )
    for axis in range(2):
        _check_border(pool, conv, source, pooled, axis)
    c_out, c_in, k_h, k_w = conv.weight.shape
    rows, columns = _taps_taken(pool, conv, 0), _taps_taken(pool, conv, 1)
    kernel = _spread(conv.weight.reshape(-1, k_h * k_w), rows, columns)
    kernel /= pool.kernel[0] * pool.kernel[1]
    kernel.shape = (c_out, c_in, rows.shape[1], columns.shape[1])
    return replace(
        conv,
        weight=handed_over(kernel),
        stride=(conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1]),
        padding=(
            conv.padding[0] * pool.stride[0] + pool.padding[0],
            conv.padding[1] * pool.stride[1] + pool.padding[1],
        ),
        dilation=(1, 1),
    )


def _taps_taken(pool: AvgPool2d, conv: Conv2d, axis: int) -> np.ndarray:
    """Matrix (taps, folded taps) along one axis: 1 where a tap averages over a folded tap."""
    taps, step = conv.weight.shape[2 + axis], pool.stride[axis] * conv.dilation[axis]
    matrix = np.zeros((taps, step * (taps - 1) + pool.kernel[axis]))
    for tap in range(taps):
        matrix[tap, step * tap : step * tap + pool.kernel[axis]] = 1.0
    return matrix


def _check_border(pool: AvgPool2d, conv: Conv2d, source: Shape, pooled: Shape, axis: int) -> None:
    """Raise an error if the folded zero padding would cover real source elements."""
    size, count = source[1 + axis], pooled[1 + axis]
    if conv.padding[axis] and pool.kernel[axis] > pool.stride[axis] + pool.padding[axis]:
        reason = "its windows overlap and the convolution pads"
    elif conv.padding[axis] and count * pool.stride[axis] - pool.padding[axis] < size:
        reason = f"it drops the last of {size} rows or columns and the convolution pads"
    else:
        # The folded kernel may need a position that the convolution did not compute.
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


def pool_into_pool(pool: AvgPool2d, follower: AvgPool2d) -> AvgPool2d:
    """Two average pools in a row as one pool of the source.

    Raises
    ------
    UnsupportedModuleError
        If the pools pad or overlap.
    """
    plain = pool.padding == (0, 0) and follower.padding == (0, 0) and pool.kernel == pool.stride
    if not plain or pool.uneven or follower.uneven:
        raise UnsupportedModuleError(
            "two average pools in a row can only be joined without padding, overlap and ceil_mode",
            node=pool.name,
            found=f"{pool.name} and {follower.name}",
        )
    return replace(
        follower,
        kernel=(pool.kernel[0] * follower.kernel[0], pool.kernel[1] * follower.kernel[1]),
        stride=(pool.stride[0] * follower.stride[0], pool.stride[1] * follower.stride[1]),
    )


def pool_as_conv(pool: AvgPool2d, channels: int) -> Conv2d:
    """The pool as a depthwise convolution, to serve as a summand of a layer.

    Raises
    ------
    UnsupportedModuleError
        If its windows have different divisors.
    """
    if pool.uneven:
        raise _uneven_pool(pool)
    weight = np.full((channels, 1, *pool.kernel), 1.0 / (pool.kernel[0] * pool.kernel[1]))
    bias = np.zeros(channels)
    return Conv2d(
        pool.name, pool.sources, weight, bias, pool.stride, pool.padding, (1, 1), channels
    )
