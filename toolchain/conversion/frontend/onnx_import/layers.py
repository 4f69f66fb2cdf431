"""Convolutions, dense layers, BatchNorm and pools of ONNX as torch's modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import ceil
from typing import Any

from torch import Tensor, nn

from toolchain.conversion.frontend.onnx_import.call import Call, Made, Surrounded, implements
from toolchain.errors import ConversionError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
GLOBAL_MAX = {3: nn.AdaptiveMaxPool1d, 4: nn.AdaptiveMaxPool2d, 5: nn.AdaptiveMaxPool3d}
GLOBAL_AVERAGE = {3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}
Sizes = list[int]


def _by_axes(call: Call, kinds: dict[int, Any], axes: int) -> Any:
    if axes not in kinds:
        raise call.refused("of so many axes", axes, allowed=", ".join(map(str, kinds)))
    return kinds[axes]


def _with_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    if bias is not None:
        layer.register_parameter("bias", nn.Parameter(bias, requires_grad=False))
    return layer


def _geometry(call: Call, kernel: Sizes) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """Strides, dilations, and padding before and behind, by spatial axis."""
    axes = len(kernel)
    strides = call.attribute("strides", [1] * axes)
    dilations = call.attribute("dilations", [1] * axes)
    pads = call.attribute("pads", [0] * 2 * axes)
    if not len(strides) == len(dilations) == axes == call.x.ndim - 2 or len(pads) != 2 * axes:
        raise ConversionError(
            "kernel, strides, dilations, pads and input differ in their number of axes",
            node=call.node.name,
        )
    auto = call.attribute("auto_pad", "NOTSET")
    if auto == "NOTSET":
        begin, end = pads[:axes], pads[axes:]
        sizes = call.x.shape[2:]
        call.check_size([n + b + e for n, b, e in zip(sizes, begin, end, strict=True)])
        return strides, dilations, begin, end
    total = [0] * axes
    if auto != "VALID":
        sizes = call.x.shape[2:]
        total = [
            max((ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
        ]
    return strides, dilations, *_split(total, auto)


def _split(total: Sizes, auto: str) -> tuple[Sizes, Sizes]:
    """Padding before and behind; SAME_UPPER puts an odd one behind, everything else before."""
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def torch_pads(begin: Sequence[int], end: Sequence[int]) -> Sizes:
    """Padding as F.pad takes it: the last axis first."""
    return list(chain.from_iterable(zip(reversed(begin), reversed(end), strict=True)))


@implements("Conv")
def _conv(call: Call) -> Made:
    weight, bias = call.constant(1), call.optional(2)
    kernel, groups = list(weight.shape[2:]), call.attribute("group", 1)
    strides, dilations, begin, end = _geometry(call, kernel)
    layer = _by_axes(call, CONVOLUTIONS, len(kernel))(
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        strides,
        begin if begin == end else 0,
        dilations,
        groups,
        bias is not None,
        device="meta",
    )
    _with_weights(layer, weight, bias)
    return layer if begin == end else Surrounded(layer, torch_pads(begin, end))


@implements("ConvTranspose")
def _conv_transpose(call: Call) -> Made:
    weight, bias = call.constant(1), call.optional(2)
    kernel, groups = list(weight.shape[2:]), call.attribute("group", 1)
    extra = call.attribute("output_padding", [0] * len(kernel))
    auto, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    strides, dilations, begin, end = _geometry(call, kernel)
    sizes = list(call.x.shape[2:])
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * s for size, s in zip(sizes, strides, strict=True)]
    full = [
        s * (size - 1) + e + (k - 1) * d + 1
        for size, s, e, k, d in zip(sizes, strides, extra, kernel, dilations, strict=True)
    ]
    call.check_size(full)
    if wanted is not None:
        total = [f - w for f, w in zip(full, wanted[-len(kernel) :], strict=True)]
        begin, end = _split(total, auto)
    # torch takes as much off the end as off the beginning; the rest is added or cropped there.
    more = [e + b - behind for e, b, behind in zip(extra, begin, end, strict=True)]
    layer = _by_axes(call, TRANSPOSED, len(kernel))(
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        strides,
        begin,
        [max(m, 0) for m in more],
        groups,
        bias is not None,
        dilations,
        device="meta",
    )
    _with_weights(layer, weight, bias)
    if min(more) >= 0:
        return layer
    crop = [f - b - e for f, b, e in zip(full, begin, end, strict=True)]
    return Surrounded(layer, sizes=crop)


@implements("Gemm")
def _gemm(call: Call) -> Made:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    flips = [bool(call.attribute(name, 0)) for name in ("transA", "transB")]
    if any(call.data[1:]) or not call.data[0] or flips[0]:

        def gemm(a: Any, b: Any, c: Any = None) -> Any:
            product = (a.t() if flips[0] else a) @ (b.t() if flips[1] else b)
            return alpha * product if c is None else alpha * product + beta * c

        return gemm
    weight, bias = call.constant(1), call.optional(2)
    weight = weight if flips[1] else weight.t()
    bias = None if bias is None else bias * beta if beta != 1 else bias
    if bias is not None:
        bias = bias.reshape(-1).expand(weight.shape[0]).contiguous()
    return _linear(weight * alpha if alpha != 1 else weight, bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    features = (weight.shape[1], weight.shape[0])
    layer = nn.Linear(*features, bias=bias is not None, device="meta")
    return _with_weights(layer, weight.contiguous(), bias)


@implements("MatMul")
def _matmul(call: Call) -> Made:
    if call.data == (True, False) and call.constant(1).ndim == 2:
        return _linear(call.constant(1).t(), None)
    return lambda a, b: a @ b


@implements("BatchNormalization")
def _batch_norm(call: Call) -> Made:
    if call.attribute("training_mode", 0):
        raise call.refused("in training mode", remedy="export the network in evaluation mode")
    weight, bias, mean, var = (call.constant(i) for i in range(1, 5))
    kind = _by_axes(call, NORMS, call.x.ndim)
    layer = kind(len(mean), call.attribute("epsilon", 1e-5))
    _with_weights(layer, weight, bias)
    layer.running_mean, layer.running_var = mean, var
    return layer.eval()


def _windows(call: Call, spans: Sizes, strides: Sizes, begin: Sizes, end: Sizes, up: bool) -> Sizes:
    """Number of a pool's windows by axis.

    With `up` (ceil_mode) a last one may hang over the end, unless it begins in the padding there.
    """
    counts = []
    for axis, (span, stride) in enumerate(zip(spans, strides, strict=True)):
        size = call.x.shape[2 + axis]
        free = size + begin[axis] + end[axis] - span
        count = (-(-free // stride) if up else free // stride) + 1
        hangs = up and (count - 1) * stride >= size + begin[axis]
        counts.append(count - hangs)
    return counts


@implements("MaxPool", "AveragePool")
def _pool(call: Call) -> Made:
    is_max = call.node.op == "MaxPool"
    kernel = call.attribute("kernel_shape")
    strides, dilations, begin, end = _geometry(call, kernel)
    up, counts = bool(call.attribute("ceil_mode", 0)), bool(call.attribute("count_include_pad", 0))
    if not is_max and max(dilations) > 1:
        raise call.refused("with dilations", dilations, allowed="1")
    kind = _by_axes(call, MAX_POOLS if is_max else AVERAGE_POOLS, len(kernel))

    def pool(padding: Sizes, up: bool) -> Any:
        # AvgPool1d makes no tuples of lists.
        shape = (tuple(kernel), tuple(strides), tuple(padding))
        if is_max:
            return kind(*shape, tuple(dilations), ceil_mode=up)
        return kind(*shape, ceil_mode=up, count_include_pad=counts)

    if begin == end:
        return pool(begin, up)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    fits = all(b <= k // 2 for b, k in zip(begin, kernel, strict=True))
    if is_max or not counts:
        # What lies outside has no part, so that only the number of windows matters.
        wanted = _windows(call, spans, strides, begin, end, up)
        for rounds_up in (False, True):
            found = _windows(call, spans, strides, begin, begin, rounds_up)
            if fits and found == wanted:
                return pool(begin, rounds_up)
        if fits and all(f >= w for f, w in zip(found, wanted, strict=True)):
            return Surrounded(pool(begin, True), sizes=wanted)
        if not is_max:
            raise call.refused("with more padding behind than before", [begin, end])
    outside = -float("inf") if is_max else 0.0
    return Surrounded(pool([0] * len(kernel), up), torch_pads(begin, end), outside)


@implements("GlobalAveragePool")
def _global_average(call: Call) -> Made:
    return _by_axes(call, GLOBAL_AVERAGE, call.x.ndim)(1)


@implements("GlobalMaxPool")
def _global_max(call: Call) -> Made:
    return _by_axes(call, GLOBAL_MAX, call.x.ndim)(1)
