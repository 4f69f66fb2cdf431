"""Operators of ONNX that move values: shapes, slices, joins, reductions, resizing.

Shapes are those of the sample that the module was made for. Where an operator sets the size of the
first axis of data, the axis stays open, since it counts samples.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.conversion.frontend.onnx_import.call import (
    Call,
    Function,
    Made,
    implements,
    reshaped,
)
from toolchain.conversion.frontend.onnx_import.layers import torch_pads

SHAPE_OPS = {"Shape", "Size"}
"""Operators whose result is constant, whatever they take."""
_REDUCTIONS: dict[str, Function] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
}


def _along(axis: int, key: Any) -> tuple[Any, ...]:
    """Index of `key` on one axis."""
    return (*(slice(None),) * axis, key)


@implements("Shape")
def _shape(call: Call) -> Made:
    start, end = call.attribute("start", 0), call.attribute("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


@implements("Size")
def _size(call: Call) -> Made:
    return lambda x: torch.tensor(x.numel())


@implements("Constant")
def _constant(call: Call) -> Made:
    for name, dtype in (
        ("value", None),
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        value = call.attribute(name)
        if value is not None:
            made = value if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)
            return lambda: made
    raise call.refused("of this kind", ", ".join(call.node.attributes), allowed="numbers")


@implements("ConstantOfShape")
def _constant_of_shape(call: Call) -> Made:
    call.check_size(call.x.tolist())
    value = call.attribute("value", torch.zeros(1))
    return lambda sizes: value.reshape(()).expand(sizes.tolist()).clone()


@implements("Range")
def _range(call: Call) -> Made:
    start, limit, step = (call.constant(i).item() for i in range(3))
    call.check_size([max(int((limit - start) / step), 0)])
    return lambda *_: torch.arange(start, limit, step, dtype=call.x.dtype)


@implements("Reshape")
def _reshape(call: Call) -> Made:
    wanted = call.constant(1).tolist()
    if not call.attribute("allowzero", 0):
        wanted = [call.x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if -1 in wanted:
        known = prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = call.x.numel() // max(known, 1)
    return reshaped(call, wanted)


@implements("Flatten")
def _flatten(call: Call) -> Made:
    axis = call.attribute("axis", 1)
    axis = axis + call.x.ndim if axis < 0 else axis
    if axis == 1 and call.x.ndim > 1:
        return nn.Flatten()
    return reshaped(call, (prod(call.x.shape[:axis]), prod(call.x.shape[axis:])))


@implements("Squeeze")
def _squeeze(call: Call) -> Made:
    axes = call.axes()
    kept = [
        size
        for axis, size in enumerate(call.x.shape)
        if not (size == 1 if axes is None else axis in axes)
    ]
    return reshaped(call, kept)


@implements("Unsqueeze")
def _unsqueeze(call: Call) -> Made:
    given = call.setting("axes", 1)
    axes = {int(axis) % (call.x.ndim + len(given)) for axis in given}
    sizes = iter(call.x.shape)
    rank = call.x.ndim + len(axes)
    return reshaped(call, [1 if axis in axes else next(sizes) for axis in range(rank)])


@implements("Transpose")
def _transpose(call: Call) -> Made:
    order = call.attribute("perm") or list(reversed(range(call.x.ndim)))
    return None if order == sorted(order) else lambda x: x.permute(order)


@implements("DepthToSpace", "SpaceToDepth")
def _depth_to_space(call: Call) -> Made:
    """Blocks of pixels from channels, or channels from blocks.

    ONNX counts a channel inside a block first (DCR), torch last (CRD).
    """
    size, area = call.attribute("blocksize"), call.attribute("blocksize") ** 2
    channels = call.x.shape[1]
    if call.node.op == "SpaceToDepth":
        order = torch.arange(channels * area).reshape(channels, area).T.reshape(-1)
        return lambda x: F.pixel_unshuffle(x, size)[:, order]
    if call.attribute("mode", "DCR") == "CRD":
        return nn.PixelShuffle(size)
    order = torch.arange(channels).reshape(area, -1).T.reshape(-1)
    return lambda x: F.pixel_shuffle(x[:, order], size)


@implements("Expand")
def _expand(call: Call) -> Made:
    sizes = list(np.broadcast_shapes(call.x.shape, call.constant(1).tolist()))
    call.check_size(sizes)
    if sizes == list(call.x.shape):
        return None
    if call.data[0] and len(sizes) == call.x.ndim:
        sizes[0] = -1
    return lambda x, *_: x.expand(sizes)


@implements("Tile")
def _tile(call: Call) -> Made:
    times = call.constant(1).tolist()
    call.check_size([*call.x.shape, *times])
    return lambda x, *_: x.repeat(times)


@implements("Concat")
def _concat(call: Call) -> Made:
    """Zeros at an end become padding, which is the same for any number of samples."""
    axis = call.attribute("axis") % max(call.x.ndim, 1)
    data = [i for i, is_data in enumerate(call.data) if is_data]
    if not data or len(data) == len(call.inputs):
        return lambda *values: torch.cat(list(values), axis)
    constants = [call.constant(i) for i, is_data in enumerate(call.data) if not is_data]
    if len(data) > 1 or any(value.count_nonzero() for value in constants):

        def join(*values: Any) -> Any:
            rows = values[data[0]].shape[0]
            each = (
                value if is_data else value.expand(rows, *value.shape[1:])
                for value, is_data in zip(values, call.data, strict=True)
            )
            return torch.cat(list(each), axis)

        return join
    sizes = [0 if value is None else value.shape[axis] for value in call.inputs]
    before, behind = sum(sizes[: data[0]]), sum(sizes[data[0] + 1 :])
    later = call.x.ndim - 1 - axis
    pads = (*(0, 0) * later, before, behind)
    return lambda *values: F.pad(values[data[0]], pads)


@implements("Split")
def _split(call: Call) -> Made:
    axis, size = call.attribute("axis", 0) % call.x.ndim, 0
    size = call.x.shape[axis]
    sizes = call.setting("split", 1)
    if sizes is None:
        count = call.attribute("num_outputs", len(call.node.outputs))
        each = -(-size // count)
        sizes = [min(each, size - start) for start in range(0, size, each)]
    count = len(call.node.outputs)

    def split(x: Any, *_: Any) -> Any:
        parts = torch.split(x, sizes, axis)
        return tuple(parts[i] for i in range(count))

    return split


@implements("Slice")
def _slice(call: Call) -> Made:
    starts, ends = call.setting("starts", 1), call.setting("ends", 2)
    axes = call.axes("axes", 3) or list(range(len(starts)))
    steps = call.setting("steps", 4) or [1] * len(starts)
    keys = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = range(*slice(start, end, step).indices(call.x.shape[axis]))
        if taken != range(call.x.shape[axis]):
            # torch has no negative steps.
            key = slice(taken.start, taken.stop, taken.step) if step > 0 else list(taken)
            keys.append(_along(axis, key))

    def cut(x: Any, *_: Any) -> Any:
        for key in keys:
            x = x[key]
        return x

    return cut if keys else None


@implements("Gather")
def _gather(call: Call) -> Made:
    axis = call.attribute("axis", 0) % call.x.ndim
    key = _along(axis, call.constant(1).tolist())
    return lambda x, *_: x[key]


@implements("Pad")
def _pad(call: Call) -> Made:
    pads = call.setting("pads", 1)
    half = len(pads) // 2
    axes = call.axes("axes", 3) or list(range(half))
    begin, end = [0] * call.x.ndim, [0] * call.x.ndim
    for axis, before, behind in zip(axes, pads[:half], pads[half:], strict=True):
        begin[axis], end[axis] = int(before), int(behind)
    mode = call.attribute("mode", "constant")
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        raise call.refused("of this mode", mode, allowed=", ".join(modes))
    call.check_size([s + b + e for s, b, e in zip(call.x.shape, begin, end, strict=True)])
    sides = torch_pads(begin, end)
    while sides[-2:] == [0, 0]:
        del sides[-2:]
    if not sides:
        return None
    if mode != "constant":
        return lambda x, *_: F.pad(x, sides, modes[mode])
    fill = call.setting("value", 2, default=0.0)
    return lambda x, *_: F.pad(x, sides, value=fill)


@implements(*_REDUCTIONS)
def _reduce(call: Call) -> Made:
    reduction, kept = _REDUCTIONS[call.node.op], bool(call.attribute("keepdims", 1))
    axes = call.axes()
    if not axes:
        if call.attribute("noop_with_empty_axes", 0):
            return None
        axes = list(range(call.x.ndim))
    return lambda x, *_: reduction(x, dim=tuple(axes), keepdim=kept)


@implements("ReduceProd")
def _reduce_prod(call: Call) -> Made:
    axes, kept = call.axes() or list(range(call.x.ndim)), bool(call.attribute("keepdims", 1))
    if len(axes) != 1:
        raise call.refused("over several axes", axes, allowed="one axis")
    return lambda x, *_: torch.prod(x, axes[0], keepdim=kept)


@implements("ArgMax")
def _arg_max(call: Call) -> Made:
    axis, kept = call.attribute("axis", 0), bool(call.attribute("keepdims", 1))
    return lambda x: torch.argmax(x, axis, keepdim=kept)


@implements("Resize", "Upsample")
def _resize(call: Call) -> Made:
    """Nearest neighbours by the index rule of the file; linear as far as torch has the same."""
    mode = call.attribute("mode", "nearest")
    rule = call.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = call.attribute("nearest_mode", "round_prefer_floor")
    newer = call.node.op == "Resize" and call.node.opset >= 11
    if not newer:  # Upsample and the first Resize
        rule, nearest = "asymmetric", "floor"
    if call.attribute("axes") is not None:
        raise call.refused("of some axes only", call.attribute("axes"), allowed="all axes")
    sizes = call.optional(3) if newer else None
    if sizes is not None and sizes.numel():
        if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise call.refused("that keeps the ratio of the sides", allowed="stretch")
        wanted = [int(size) for size in sizes]
        scales = [w / size for w, size in zip(wanted, call.x.shape, strict=True)]
    else:
        scales = call.setting("scales", 2 if newer else 1)
        wanted = [int(np.floor(size * s)) for size, s in zip(call.x.shape, scales, strict=True)]
    call.check_size(wanted)
    if wanted == list(call.x.shape):
        return None
    if mode in ("linear", "bilinear"):
        return _linear_resize(call, rule, wanted)
    if mode != "nearest" or wanted[:2] != list(call.x.shape[:2]):
        raise call.refused("of this kind", f"{mode}, {scales}", allowed="nearest, of the image")
    indices = [
        _nearest(rule, nearest, size, w, s, call)
        for size, w, s in zip(call.x.shape[2:], wanted[2:], scales[2:], strict=True)
    ]
    factors = [w // size for w, size in zip(wanted[2:], call.x.shape[2:], strict=True)]
    repeats = [
        np.array_equal(index, np.arange(size).repeat(factor))
        for index, size, factor in zip(indices, call.x.shape[2:], factors, strict=True)
    ]
    if all(repeats):
        same = len(set(factors)) == 1
        return nn.Upsample(scale_factor=factors[0] if same else tuple(factors))

    def pick(x: Any, *_: Any) -> Any:
        for axis, index in enumerate(indices):
            x = x[_along(2 + axis, index.tolist())]
        return x

    return pick


def _nearest(
    rule: str, nearest: str, size: int, wanted: int, scale: float, call: Call
) -> np.ndarray:
    """Index of the input value that each output value along an axis is, by ONNX's rules."""
    at = np.arange(wanted, dtype=np.float64)
    rules = {
        "asymmetric": at / scale,
        "half_pixel": (at + 0.5) / scale - 0.5,
        "half_pixel_symmetric": size / 2 * (1 - wanted / (scale * size)) + (at + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (at + 0.5) / scale - 0.5 if wanted > 1 else 0 * at,
        "align_corners": at * (size - 1) / max(wanted - 1, 1),
        "tf_half_pixel_for_nn": (at + 0.5) / scale,
    }
    roundings: dict[str, Any] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }
    if rule not in rules or nearest not in roundings:
        raise call.refused(
            "by this rule", f"{rule}, {nearest}", allowed=", ".join((*rules, *roundings))
        )
    index: np.ndarray = np.clip(roundings[nearest](rules[rule]), 0, size - 1).astype(np.int64)
    return index


def _linear_resize(call: Call, rule: str, wanted: list[int]) -> Made:
    aligned = rule == "align_corners"
    same = rule in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if not same or call.x.ndim != 4 or call.attribute("antialias", 0):
        raise call.refused("linear by this rule", rule, allowed="half_pixel, align_corners")
    return nn.Upsample(size=tuple(wanted[2:]), mode="bilinear", align_corners=aligned)
