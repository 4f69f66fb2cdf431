"""Average and max pools, as modules, functions and methods."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from torch import fx

from toolchain.conversion.frontend.operators.affine import scaled
from toolchain.conversion.frontend.operators.reshape import rearrange
from toolchain.conversion.frontend.operators.selection import NO_PADDING, Sides
from toolchain.conversion.frontend.operators.values import (
    Traced,
    Values,
    as_pair,
    bind_arguments,
    called_module,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.conv_output import conv_output
from toolchain.program.float_program import AvgPool2d, FloatNode, MaxPool2d, Shape
from toolchain.program.synapse import Pair


def _ceil_adds_a_window(source: Shape, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether ceil_mode changes the output of an average pool of `source`, (C, H, W)."""
    axes = list(zip(source[1:], kernel, stride, padding, (1, 1), strict=True))
    return any(conv_output(*axis, ceil_mode=True) != conv_output(*axis) for axis in axes)


def average_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> None:
    """Add an average pool of `value` with the settings of nn.AvgPool2d."""
    if how["divisor_override"]:
        raise UnsupportedModuleError(
            "average pool with divisor_override",
            node=values.path(node),
            remedy="leave it out, and scale the weights of the layer behind instead",
        )
    source = values.source(node, value)
    kernel = as_pair(how["kernel_size"])
    stride = kernel if how["stride"] in (None, ()) else as_pair(how["stride"])
    padding = as_pair(how["padding"])
    ceil_mode = how["ceil_mode"] and _ceil_adds_a_window(source.shape, kernel, stride, padding)
    result = AvgPool2d(
        values.new_name(node),
        (source.name,),
        kernel,
        stride,
        padding,
        bool(how["count_include_pad"]),
        ceil_mode,
    )
    values.emit(node, result, source)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def avg_pool_module(node: fx.Node, values: Values) -> None:
    """Handle nn.AvgPool2d."""
    m = called_module(node)
    average_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _POOL})


def avg_pool_function(node: fx.Node, values: Values) -> None:
    """Handle F.avg_pool2d."""
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }
    a = bind_arguments(node, values, ("input", *_POOL), defaults)
    average_pool(node, values, a.pop("input"), **a)


def max_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> None:
    """Add a max pool of `value` with the settings of nn.MaxPool2d."""
    if how["return_indices"]:
        raise UnsupportedModuleError(
            "max pool with return_indices",
            node=values.path(node),
            remedy="leave return_indices=False",
        )
    source, outside = values.padded(node, value, lowest=True)
    kernel = as_pair(how["kernel_size"])
    stride = kernel if how["stride"] in (None, ()) else as_pair(how["stride"])
    own, dilation = as_pair(how["padding"]), as_pair(how["dilation"])
    if outside != NO_PADDING and not source.is_lowest:
        _check_zeros_lose(node, values, source, outside)
    above, left = (o + sides[0] for o, sides in zip(own, outside, strict=True))
    axes = zip(source.shape[1:], kernel, stride, own, dilation, outside, strict=True)
    down, right = (_overhang(*axis, ceil_mode=how["ceil_mode"]) for axis in axes)
    if 2 * above > kernel[0] or 2 * left > kernel[1]:
        raise UnsupportedModuleError(
            "a max pool with more padding than half its kernel",
            node=values.path(node),
            found=f"{above} rows above and {left} columns to the left",
            allowed=f"at most half of {kernel}",
        )
    name = values.new_name(node)
    result = MaxPool2d(name, (source.name,), kernel, stride, (above, left), dilation, (down, right))
    values.emit(node, result, source)


def _check_zeros_lose(node: fx.Node, values: Values, source: Traced, outside: Sides) -> None:
    """Raise an error unless zeros around `source` are never larger than all values of a window."""
    if not values.is_never_negative(source):
        raise UnsupportedModuleError(
            "zeros around values that may be negative, in front of a max pool",
            node=values.path(node),
            found=f"{outside[0]} rows and {outside[1]} columns around {source.name}",
            allowed="zeros around the values of a quantized activation",
            remedy="put the activation in front of the padding",
        )


def _overhang(
    size: int, kernel: int, stride: int, own: int, dilation: int, outside: Pair, *, ceil_mode: bool
) -> int:
    """Padding at the end of an axis beyond that at its beginning; 0 if that makes no difference.

    `own` is the pool's padding on both sides, `outside` that around its input.
    """
    begin, padded = own + outside[0], size + sum(outside)
    windows = conv_output(padded, kernel, stride, own, dilation, ceil_mode=ceil_mode)
    if windows == conv_output(size, kernel, stride, begin, dilation):
        return 0
    reach = dilation * (kernel - 1) + 1
    return max((windows - 1) * stride + reach - size - begin, 0) - begin


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def max_pool_module(node: fx.Node, values: Values) -> None:
    """Handle nn.MaxPool2d."""
    m = called_module(node)
    max_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _MAX_POOL})


def max_pool_function(node: fx.Node, values: Values) -> None:
    """Handle F.max_pool2d and torch.max_pool2d."""
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
        "return_indices": False,
    }
    a = bind_arguments(node, values, ("input", *_MAX_POOL), defaults)
    max_pool(node, values, a.pop("input"), **a)


def _adaptive_size(node: fx.Node, values: Values, source: Traced, output_size: Any) -> Pair:
    """Rows and columns of the output of an adaptive pool."""
    if len(source.shape) != 3:
        raise UnsupportedModuleError(
            "an adaptive pool of something other than images",
            node=values.path(node),
            found=source.shape,
        )
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    sizes = zip(wanted, source.shape[1:], strict=True)
    rows, columns = (own if w is None else int(w) for w, own in sizes)
    return rows, columns


def _even_kernel(source: Traced, size: Pair) -> Pair | None:
    """Window of an adaptive pool, which is also its stride; None if windows differ."""
    _, height, width = source.shape
    if height % size[0] or width % size[1]:
        return None
    return (height // size[0], width // size[1])


def _repeats(source: Traced, output_size: Any) -> bool:
    """Whether every window of an adaptive pool holds one value, which it repeats."""
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    sizes = list(zip(wanted, source.shape[1:], strict=False))
    return (
        len(source.shape) == 3
        and all(w is not None and w % size == 0 for w, size in sizes)
        and any(w != size for w, size in sizes)
    )


def adaptive_average(node: fx.Node, values: Values, value: Any, output_size: Any) -> None:
    """Add an adaptive average pool of `value` with the settings of nn.AdaptiveAvgPool2d."""
    source = values.source(node, value)
    size = _adaptive_size(node, values, source, output_size)
    kernel = _even_kernel(source, size)
    pool = AvgPool2d(values.new_name(node), (source.name,), kernel or size, kernel or size, (0, 0))
    if kernel is None:
        pool = replace(pool, count_padding=False, adaptive=size)
    values.emit(node, pool, source)


def adaptive_avg_module(node: fx.Node, values: Values) -> None:
    """Handle nn.AdaptiveAvgPool2d."""
    adaptive_average(node, values, node.args[0], called_module(node).output_size)


def adaptive_avg_function(node: fx.Node, values: Values) -> None:
    """Handle F.adaptive_avg_pool2d."""
    a = bind_arguments(node, values, ("input", "output_size"), {})
    adaptive_average(node, values, a["input"], a["output_size"])


def adaptive_max(
    node: fx.Node, values: Values, value: Any, output_size: Any, return_indices: bool
) -> None:
    """Add an adaptive max pool of `value` with the settings of nn.AdaptiveMaxPool2d."""
    if _repeats(values.tensor(node, value), output_size):
        rearrange(node, values)
        return
    source = values.source(node, value)
    size = _adaptive_size(node, values, source, output_size)
    kernel = _even_kernel(source, size)
    if kernel is None:
        raise UnsupportedModuleError(
            "an adaptive max pool with uneven windows",
            node=values.path(node),
            found=f"{source.shape} to {size}",
            allowed="output sizes that divide the input's",
        )
    how = {"stride": kernel, "padding": 0, "dilation": 1, "ceil_mode": False}
    max_pool(node, values, value, kernel_size=kernel, return_indices=return_indices, **how)


def adaptive_max_module(node: fx.Node, values: Values) -> None:
    """Handle nn.AdaptiveMaxPool2d."""
    m = called_module(node)
    adaptive_max(node, values, node.args[0], m.output_size, m.return_indices)


def adaptive_max_function(node: fx.Node, values: Values) -> None:
    """Handle F.adaptive_max_pool2d."""
    names = ("input", "output_size", "return_indices")
    a = bind_arguments(node, values, names, {"return_indices": False})
    adaptive_max(node, values, a["input"], a["output_size"], a["return_indices"])


def mean_function(node: fx.Node, values: Values) -> None:
    """Handle Tensor.mean and torch.mean over rows, columns or both: average pools."""
    _over_image(node, values, "mean")


def sum_function(node: fx.Node, values: Values) -> None:
    """Handle Tensor.sum and torch.sum over rows, columns or both: scaled average pools."""
    _over_image(node, values, "sum")


def amax_function(node: fx.Node, values: Values) -> None:
    """Handle Tensor.amax and torch.amax over rows, columns or both: max pools."""
    _over_image(node, values, "maximum")


def _over_image(node: fx.Node, values: Values, what: str) -> None:
    """Add the mean, sum or maximum over the axes of an image that the call names."""
    a = bind_arguments(node, values, ("input", "dim", "keepdim"), {"dim": None, "keepdim": False})
    source = values.tensor(node, a["input"])
    axes = len(source.shape) + 1
    dims = a["dim"] if isinstance(a["dim"], tuple | list) else (a["dim"],)
    averaged = [d % axes - 1 for d in dims if d is not None]
    pooled = _pooled_axes(source, averaged) if -1 not in averaged else []
    if not pooled:
        raise UnsupportedModuleError(
            f"a {what} over other axes than the image's",
            node=values.path(node),
            found=f"dim={a['dim']} of {axes} axes",
            allowed="dim=(2, 3)",
        )
    kernel = (source.base[1] if 1 in pooled else 1, source.base[2] if 2 in pooled else 1)
    name, image = values.new_name(node), Traced(source.name, source.base)
    if what == "maximum":
        pool: FloatNode = MaxPool2d(name, (source.name,), kernel, kernel, (0, 0), (1, 1))
    else:
        pool = AvgPool2d(name, (source.name,), kernel, kernel, (0, 0))
    made = values.emit(node, pool, image)
    if what == "sum":
        made = scaled(node, values, Traced(name, made.base), float(prod(kernel)))
    sizes = enumerate(source.shape)
    shape = [1 if i in averaged else s for i, s in sizes if i not in averaged or a["keepdim"]]
    if tuple(shape) != made.base:
        index = made.positions().reshape(shape)
        values.bind(node, Traced(made.name, made.base, index, f"{values.path(node)}.flatten"))


def _pooled_axes(source: Traced, averaged: list[int]) -> list[int]:
    """Axes of the image whose mean is that over the axes `averaged` of a view of it."""
    if len(source.base) != 3 or not averaged:
        return []
    index = source.positions()
    kept = [i for i in range(index.ndim) if i not in averaged]
    order = (*kept, *sorted(averaged))
    groups = np.transpose(index, order).reshape(prod(index.shape[i] for i in kept), -1)
    image = np.arange(1, prod(source.base) + 1).reshape(source.base)
    for axes in ([1, 2], [1], [2]):
        wanted = np.moveaxis(image, axes, range(-len(axes), 0))
        if np.array_equal(groups, wanted.reshape(-1, prod(source.base[a] for a in axes))):
            return axes
    return []
