"""The image that a network's samples are: (channels, height, width), however it takes them.

Programs take images (C, H, W) or vectors (F,). A network may take its samples otherwise: sequences
(C, L), images with the channels last, a vector that its forward calls an image. What it makes of
them first says which image they are: its forward runs on the positions of values until something
other than a view or arithmetic with constants reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.operators.selection import is_in_order, without_border
from toolchain.conversion.frontend.several_inputs import joined
from toolchain.conversion.frontend.user_module import derived, in_evaluation, outputs
from toolchain.errors import SpikeportError
from toolchain.user_code import home_of, user_code

Shape = tuple[int, ...]
_VIEWS = {
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "reshape", "view"),
    *("flatten", "unflatten", "ravel", "unsqueeze", "squeeze", "__getitem__", "narrow", "pad"),
}
"""Functions that arrange values, by name."""
_SAME = {
    *("contiguous", "clone", "detach", "add", "sub", "mul", "div", "rsub", "neg"),
    *("true_divide", "subtract", "multiply", "divide", "__rsub__", "__neg__"),
}
"""Functions that give each value another number, in its place."""
_LOOKS = {"__get__", "size", "dim", "ndimension", "numel", "__len__", "is_floating_point", "stride"}


class _Read(BaseException):
    """Ends the forward at the first operation that reads values; not an error of the network."""

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions.as_subclass(Tensor)


class _Positions(Tensor):
    """Positions of values in a sample, (N, ...), in place of the values."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(getattr(func, "__name__", "")).partition(".")[0]
        name = name if name.startswith("__") else name.rstrip("_")
        found = [a for a in args if isinstance(a, _Positions)]
        if name in _SAME and len(found) == 1:
            return found[0]
        if name in _VIEWS | _LOOKS:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise _Read(found[0] if found else torch.zeros(1, 0))


@dataclass(frozen=True)
class _Form:
    """A network that takes samples of `shape`, which are images or vectors `image`.

    `axes` are those of a sample without its axes of size 1, in the order of the image; None where
    no value moves.
    """

    shape: Shape
    image: Shape
    axes: tuple[int, ...] | None = None

    def as_taken(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) as the network takes them."""
        if self.axes is None:
            return x.reshape(-1, *self.shape)
        sizes = [s for s in self.shape if s > 1]
        moved = x.reshape(-1, *(sizes[axis] for axis in self.axes))
        back = (1 + self.axes.index(axis) for axis in range(len(sizes)))
        return moved.permute(0, *back).reshape(-1, *self.shape)


def of_images(model: nn.Module, shape: Shape) -> tuple[nn.Module, Shape, tuple[str, ...]]:
    """A network of samples of `shape` as one of images, their shape, and notes on what differs.

    `shape` may be that of the image too. Several inputs become one (`several_inputs`). The network
    itself and its modules stay as they are; one that takes such images or vectors is returned as
    it is.
    """
    model, notes = joined(model, shape)
    form = _form(model, shape)
    if len(shape) == 3 and (form is None or form.image != shape or 1 in shape[1:]):
        # That of the image, maybe, and the network takes the channels last, or fewer axes.
        orders = (shape, (*shape[1:], shape[0]))
        tried = [o for order in orders for o in (order, tuple(s for s in order if s > 1)) if o]
        taken = next((other for other in tried if _runs(model, other)), None)
        form = _form(model, taken) if taken else None
    if form is None:
        form = _Form(shape, (shape[0], 1, shape[1]) if len(shape) == 2 else shape)
    if form.image == form.shape:
        return model, shape, notes
    kind = type(model)

    def forward(self: Any, x: Tensor) -> Any:
        return kind.forward(self, form.as_taken(x))

    return derived(model, forward), form.image, (*notes, _note(form))


def _note(form: _Form) -> str:
    if len(form.shape) == 2:
        return f"sequences {form.shape} are taken as images {form.image}"
    return (
        f"samples are given as (channels, height, width), {form.image}; the network itself takes "
        f"{form.shape}"
    )


def _form(model: nn.Module, shape: Shape) -> _Form | None:
    """The form of samples of `shape`, where the network's first operations say it."""
    index = _first_read(model, shape)
    if index is None or index.size == 0:
        return None
    if index.ndim == 1 == len(shape):
        return _Form(shape, shape)
    if index.ndim == 2:
        index = index[:, None, :]
    if index.ndim != 3:
        return None
    index, _ = without_border(index)
    sizes = [s for s in shape if s > 1]
    same = sizes == [s for s in index.shape if s > 1] or len(shape) == 1
    if same and is_in_order(index, shape):
        return _Form(shape, index.shape)
    numbers = np.arange(1, prod(shape) + 1).reshape(sizes)
    for axes in permutations(range(len(sizes))):
        if np.array_equal(numbers.transpose(axes).reshape(-1), index.reshape(-1)):
            return _Form(shape, index.shape, axes)
    return None


@torch.no_grad()
def _first_read(model: nn.Module, shape: Shape) -> np.ndarray | None:
    """Positions (...) of a sample's values, from 1 on, in what the network reads first."""
    numbers = torch.arange(1, prod(shape) + 1, dtype=torch.float64).reshape(shape)
    positions = torch.stack([numbers, numbers]).as_subclass(_Positions)
    try:
        with (
            user_code("the network's forward fails", type(model).__name__, home_of(model)),
            in_evaluation(model),
        ):
            model(positions)
    except _Read as read:
        return np.asarray(read.positions[0].long().numpy())
    except SpikeportError:
        pass  # tracing says what it is
    return None


def _runs(model: nn.Module, shape: Shape) -> bool:
    try:
        outputs(model, torch.zeros(2, *shape))
    except SpikeportError:
        return False
    return True
