"""Operations that arrange values in another order or shape, or do nothing in evaluation."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from toolchain.conversion.frontend.forwards import WIDE, cast_types
from toolchain.conversion.frontend.operators.values import (
    Traced,
    Values,
    bind_arguments,
    called_module,
    run_on,
)
from toolchain.conversion.frontend.tracer import SAMPLES
from toolchain.errors import UnsupportedModuleError

VIEWS = (
    "flatten unflatten reshape view view_as reshape_as permute transpose swapaxes swapdims "
    "movedim moveaxis adjoint t squeeze unsqueeze chunk split tensor_split hsplit vsplit narrow "
    "select unbind index_select getitem flip roll expand expand_as tile repeat repeat_interleave "
    "pixel_shuffle pixel_unshuffle channel_shuffle"
)
"""Names of torch's methods and functions that `rearrange` handles."""


def rearrange(node: fx.Node, values: Values) -> None:
    """Handle every view, permutation, slice, and copy of values: it is run on their positions.

    Raises
    ------
    UnsupportedModuleError
        If values of one sample go to another.
    """
    value = node.args[0] if node.args else node.kwargs["input"]
    if isinstance(value, fx.Node) and isinstance(values.value(value), list):
        _pick(node, values, value)
        return
    source = values.tensor(node, value)
    result = run_on(node, values, value, _numbered(source))
    if isinstance(result, Tensor):
        values.bind(node, _view(node, values, source, result))
    else:
        values.bind(node, [_view(node, values, source, part) for part in result])


def _numbered(source: Traced) -> Tensor:
    """Positions of two samples' values, those of the second behind those of the first."""
    index = torch.from_numpy(source.positions()).double()
    second = torch.where(index > 0, index + prod(source.base), index)
    return torch.stack([index, second])


def _view(node: fx.Node, values: Values, source: Traced, positions: Tensor) -> Traced:
    """The tensor with these positions, (2, ...), of the values of `source`."""
    index = np.atleast_1d(positions.long().numpy())
    first = index[:1]
    shifted = (first > 0) * prod(source.base) + first
    if len(index) != SAMPLES or (first < 0).any() or (index[1:] != shifted).any():
        raise UnsupportedModuleError(
            "values of one sample go to another",
            node=values.path(node),
            found=f"{(SAMPLES, *source.shape)} to {tuple(positions.shape)}",
            allowed="the batch as the first axis, with the samples in their order",
        )
    kept = source.index is not None or first.shape[1:] != source.base
    moved = kept or (first.reshape(-1) != source.positions().reshape(-1)).any()
    path = source.path if source.index is not None else values.path(node)
    view = Traced(source.name, source.base, first[0] if moved else None, path)
    view.is_rectified = source.is_rectified
    return view


def _pick(node: fx.Node, values: Values, value: fx.Node) -> None:
    """Handle one of several tensors: x.chunk(2, 1)[0]."""
    parts = values.value(value)
    if not isinstance(parts, list) or not isinstance(node.args[1], int):
        raise TypeError(node.args)
    values.bind(node, parts[node.args[1]])


def pass_on(node: fx.Node, values: Values) -> None:
    """Handle Dropout, Identity and the like, which do nothing in evaluation mode."""
    value = node.args[0] if node.args else node.kwargs["input"]
    values.bind(node, values.tensor(node, value))


def cast(node: fx.Node, values: Values) -> None:
    """Handle x.float(), x.to(device) and the like, which change nothing in real arithmetic.

    Raises
    ------
    UnsupportedModuleError
        For a cast to another type than float32 or float64.
    """
    given = [values.resolve(a) for a in (*node.args[1:], *node.kwargs.values())]
    others = [k for k in cast_types(str(node.target), given) if k not in WIDE]
    if others:
        raise UnsupportedModuleError(
            "a cast that rounds",
            node=values.path(node),
            found=f"{node.target}: {others[0]}",
            allowed="float32, float64",
            remedy="leave it out, and give the network itself the type: model.half()",
        )
    pass_on(node, values)


def dropout_function(node: fx.Node, values: Values) -> None:
    """Handle F.dropout."""
    names = ("input", "p", "training", "inplace")
    a = bind_arguments(node, values, names, {"p": 0.5, "training": True, "inplace": False})
    if a["training"]:
        raise UnsupportedModuleError(
            "F.dropout with training=True is random",
            node=values.path(node),
            remedy="pass training=self.training, or use nn.Dropout",
        )
    pass_on(node, values)


def pad_module(node: fx.Node, values: Values) -> None:
    """Handle nn.ZeroPad2d and nn.ConstantPad2d."""
    m = called_module(node)
    _pad(node, values, "constant", m.value, m.padding)


def pad_function(node: fx.Node, values: Values) -> None:
    """Handle F.pad."""
    names = ("input", "pad", "mode", "value")
    a = bind_arguments(node, values, names, {"mode": "constant", "value": None})
    _pad(node, values, a["mode"], a["value"], a["pad"])


def _pad(node: fx.Node, values: Values, mode: str, fill: Any, padding: Any) -> None:
    if mode == "constant" and fill == -torch.inf:
        value = node.args[0] if node.args else node.kwargs["input"]
        source = values.tensor(node, value)
        if not source.positions().all():
            raise UnsupportedModuleError("minus infinity around zeros", node=values.path(node))
        around = _view(node, values, source, F.pad(_numbered(source), padding))
        around.is_lowest = bool((around.positions() == 0).any())
        values.bind(node, around)
        return
    if mode != "constant" or fill not in (None, 0, 0.0):
        raise UnsupportedModuleError(
            "padding other than zeros around images",
            node=values.path(node),
            found=f"{mode} {'' if fill is None else fill}, {padding}",
            allowed="zeros, or minus infinity in front of a max pool",
        )
    rearrange(node, values)


def upsample_module(node: fx.Node, values: Values) -> None:
    """Handle nn.Upsample and nn.UpsamplingNearest2d."""
    _check_nearest(node, values, called_module(node).mode)
    rearrange(node, values)


def upsample_function(node: fx.Node, values: Values) -> None:
    """Handle F.interpolate."""
    names = ("input", "size", "scale_factor", "mode")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    _check_nearest(node, values, str(given.get("mode", "nearest")))
    rearrange(node, values)


def _check_nearest(node: fx.Node, values: Values, mode: str) -> None:
    if not mode.startswith("nearest"):
        raise UnsupportedModuleError(
            "an interpolation between pixels",
            node=values.path(node),
            found=mode,
            allowed="nearest",
            remedy="nearest by a whole factor, or an nn.ConvTranspose2d; then train again",
        )
