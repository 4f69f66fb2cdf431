"""A LeNet-like network: two convolutions with BatchNorm and pools, two dense layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.learning.models.parts import ActivationFactory, check_image, pool, scaled

MINIMUM_SIZE = 4


def lenet(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """Conv 3x3 - pool - conv 3x3 - pool - dense - dense; samples (C, H, W), H and W >= 4.

    Channels are 16, 32 and 64 times `width`. Sizes that 4 does not divide are handled by torch's
    floor rule for pools.
    """
    check_image("lenet", input_shape, MINIMUM_SIZE)
    channels, height, width_px = input_shape
    c1, c2, hidden = (scaled(c, width) for c in (16, 32, 64))
    features = nn.Sequential(
        nn.Conv2d(channels, c1, 3, padding=1, bias=False),
        nn.BatchNorm2d(c1),
        activation(),
        pool(pooling, 2),
        nn.Conv2d(c1, c2, 3, padding=1, bias=False),
        nn.BatchNorm2d(c2),
        activation(),
        pool(pooling, 2),
    )
    classifier = nn.Sequential(
        nn.Linear(c2 * (height // 2 // 2) * (width_px // 2 // 2), hidden),
        activation(),
        nn.Linear(hidden, num_classes),
    )
    return nn.Sequential(
        OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier)
    )
