"""Planes as a sliding kernel sees them, in torch: with what is around the source and between it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from toolchain.program.float_program import Conv2d
from toolchain.program.synapse import ConvSynapse, Sliding


def seen(geometry: Sliding, values: Tensor, fill: float = 0) -> Tensor:
    """Values (..., H, W) where the kernel meets them, with `fill` around and between them."""
    size, (rows, columns) = geometry.laid_out(values.shape)
    plane = values.new_full((*values.shape[:-2], *size), fill)
    plane[..., rows, columns] = values
    return plane


def correlated(
    layer: ConvSynapse | Conv2d, values: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The convolution of values (N, C, H, W) with these weights."""
    padding = layer.padding
    if not layer.is_even:
        values, padding = seen(layer, values), (0, 0)
    return F.conv2d(values, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def windows(layer: Conv2d, values: Tensor) -> Tensor:
    """What the kernel meets at each place, (N, C K_h K_w, places), of values (N, C, H, W)."""
    padding = layer.padding
    if not layer.is_even:
        values, padding = seen(layer, values), (0, 0)
    return F.unfold(values, layer.kernel, layer.dilation, padding, layer.stride)
