"""A network of dense layers only."""

from __future__ import annotations

from math import prod

from torch import nn

from toolchain.learning.models.parts import ActivationFactory, scaled


def mlp(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """Two hidden layers of 64 and 32 neurons times `width`; any sample shape. It has no pools."""
    first, second = (scaled(f, width) for f in (64, 32))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(input_shape), first),
        activation(),
        nn.Linear(first, second),
        activation(),
        nn.Linear(second, num_classes),
    )
