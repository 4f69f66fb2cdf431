"""Average and max pools, as modules, functions and methods."""

from __future__ import annotations

from typing import Any

from torch import fx

from toolchain.conversion.frontend.operators.values import (
    Made,
    Values,
    as_pair,
    bind_arguments,
    called_module,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import AvgPool2d, Flatten, FloatNode, MaxPool2d
from toolchain.program.synapse import Pair


def _check_windows_fit(
    node: fx.Node,
    values: Values,
    source: fx.Node,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> None:
    """Raise an error if ceil_mode adds a window that extends beyond the border."""
    for axis, word in enumerate(("rows", "columns")):
        size, step = values.shapes[source][1 + axis], stride[axis]
        free = size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        rest = free % step
        # torch drops the added window if it would begin after the image.
        if rest and (free // step + 1) * step < size + padding[axis]:
            raise UnsupportedModuleError(
                "a pool with ceil_mode whose last window hangs over the border",
                node=values.path(node),
                found=f"{size} {word}, of which the last {rest} fill no window",
                allowed="windows that fit, where ceil_mode changes nothing",
                remedy=f"set ceil_mode=False and train again, or choose an input size with which "
                f"the pool gets {size - rest} or {size - rest + step} {word}",
            )


def _avg_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> FloatNode:
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
    if how["ceil_mode"]:
        _check_windows_fit(node, values, source, kernel, stride, padding, (1, 1))
    result = AvgPool2d(
        values.new_name(node),
        (values.names[source],),
        kernel,
        stride,
        padding,
        bool(how["count_include_pad"]),
    )
    return values.made(node, result, source)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def avg_pool_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.AvgPool2d."""
    m = called_module(node, values)
    return _avg_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _POOL})


def avg_pool_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.avg_pool2d."""
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }
    a = bind_arguments(node, values, ("input", *_POOL), defaults)
    return _avg_pool(node, values, a.pop("input"), **a)


def _max_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> FloatNode:
    if how["return_indices"]:
        raise UnsupportedModuleError(
            "max pool with return_indices",
            node=values.path(node),
            remedy="leave return_indices=False",
        )
    source = values.source(node, value)
    kernel = as_pair(how["kernel_size"])
    stride = kernel if how["stride"] in (None, ()) else as_pair(how["stride"])
    padding, dilation = as_pair(how["padding"]), as_pair(how["dilation"])
    if how["ceil_mode"]:
        _check_windows_fit(node, values, source, kernel, stride, padding, dilation)
    name = values.new_name(node)
    result = MaxPool2d(name, (values.names[source],), kernel, stride, padding, dilation)
    return values.made(node, result, source)


_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def max_pool_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.MaxPool2d."""
    m = called_module(node, values)
    return _max_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _MAX_POOL})


def max_pool_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.max_pool2d and torch.max_pool2d."""
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
        "return_indices": False,
    }
    a = bind_arguments(node, values, ("input", *_MAX_POOL), defaults)
    return _max_pool(node, values, a.pop("input"), **a)


def _adaptive_kernel(node: fx.Node, values: Values, source: fx.Node, output_size: Any) -> Pair:
    """Window of an adaptive pool, which is also its stride, if all windows are equal."""
    shape = values.shapes[source]
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    target = [shape[1 + i] if wanted[i] is None else int(wanted[i]) for i in range(len(shape[1:]))]
    if len(shape) != 3 or any(shape[1 + i] % target[i] for i in range(2)):
        raise UnsupportedModuleError(
            "adaptive pool with uneven windows",
            node=values.path(node),
            found=f"{shape} to {wanted}",
            allowed="output sizes that divide the input's",
        )
    return (shape[1] // target[0], shape[2] // target[1])


def _adaptive_avg(node: fx.Node, values: Values, value: Any, output_size: Any) -> FloatNode:
    source = values.source(node, value)
    kernel = _adaptive_kernel(node, values, source, output_size)
    result = AvgPool2d(values.new_name(node), (values.names[source],), kernel, kernel, (0, 0))
    return values.made(node, result, source)


def adaptive_avg_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.AdaptiveAvgPool2d."""
    return _adaptive_avg(node, values, node.args[0], called_module(node, values).output_size)


def adaptive_avg_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.adaptive_avg_pool2d."""
    a = bind_arguments(node, values, ("input", "output_size"), {})
    return _adaptive_avg(node, values, a["input"], a["output_size"])


def _adaptive_max(
    node: fx.Node, values: Values, value: Any, output_size: Any, return_indices: bool
) -> FloatNode:
    source = values.source(node, value)
    kernel = _adaptive_kernel(node, values, source, output_size)
    how = {"stride": kernel, "padding": 0, "dilation": 1, "ceil_mode": False}
    return _max_pool(node, values, value, kernel_size=kernel, return_indices=return_indices, **how)


def adaptive_max_module(node: fx.Node, values: Values) -> FloatNode:
    """Handle nn.AdaptiveMaxPool2d."""
    m = called_module(node, values)
    return _adaptive_max(node, values, node.args[0], m.output_size, m.return_indices)


def adaptive_max_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle F.adaptive_max_pool2d."""
    names = ("input", "output_size", "return_indices")
    a = bind_arguments(node, values, names, {"return_indices": False})
    return _adaptive_max(node, values, a["input"], a["output_size"], a["return_indices"])


def mean_function(node: fx.Node, values: Values) -> Made:
    """Handle Tensor.mean and torch.mean over both image axes: a global average pool."""
    a = bind_arguments(node, values, ("input", "dim", "keepdim"), {"dim": None, "keepdim": False})
    source = values.source(node, a["input"])
    shape = values.shapes[source]
    axes = len(shape) + 1
    dims = a["dim"] if isinstance(a["dim"], tuple | list) else (a["dim"],)
    if axes != 4 or sorted(d if d is None or d >= 0 else d + axes for d in dims) != [2, 3]:
        raise UnsupportedModuleError(
            "a mean over other axes than the image's",
            node=values.path(node),
            found=f"dim={a['dim']} of {axes} axes",
            allowed="dim=(2, 3)",
        )
    kernel = (shape[1], shape[2])
    pool = AvgPool2d(values.new_name(node), (values.names[source],), kernel, kernel, (0, 0))
    values.made(node, pool, source)
    if a["keepdim"]:
        return pool
    flatten = Flatten(values.new_name(node, ".flatten"), (pool.name,))
    values.bind(node, flatten.name, (shape[0],))
    return (pool, flatten)
