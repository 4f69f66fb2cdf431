"""A network of dense layers only."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import nn


def mlp(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Callable[[], nn.Module],
    width: float = 1.0,
) -> nn.Module:
    """Two hidden layers of 64 and 32 neurons times `width`; any sample shape."""
    first, second = (max(1, round(width * f)) for f in (64, 32))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(input_shape), first),
        activation(),
        nn.Linear(first, second),
        activation(),
        nn.Linear(second, num_classes),
    )
