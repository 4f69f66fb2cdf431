"""VGG (Simonyan & Zisserman, 2015) with BatchNorm and a quantized activation passed in."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.learning.models.parts import ActivationFactory, check_image, initialise, pool, scaled

POOL = 0
"""Stands for a 2x2 pool among the channel counts."""
CONFIGURATIONS: dict[str, tuple[int, ...]] = {
    "vgg11": (64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL),
    "vgg16": (
        *(64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL),
        *(512, 512, 512, POOL, 512, 512, 512, POOL),
    ),
}
"""Configurations A and D of the paper's table 1."""
HIDDEN = 4096
"""Width of the two dense layers, as in the paper."""


def vgg(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """VGG11 or VGG16 for images (C, H, W) of at least 28 pixels.

    A pool over an odd side pads it by one, so that no row or column is dropped and images of
    28 pixels keep a last map of one pixel. `width` scales the channels and the two dense layers.
    """
    check_image(name, input_shape, 28)
    channels, height, width_px = input_shape
    features: list[nn.Module] = []
    for count in CONFIGURATIONS[name]:
        if count == POOL:
            odd = height % 2 or width_px % 2
            features.append(pool(pooling, 2, 2, padding=1 if odd else 0))
            height, width_px = ((s + 2 * bool(odd) - 2) // 2 + 1 for s in (height, width_px))
            continue
        out = scaled(count, width)
        features += [
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
            activation(),
        ]
        channels = out
    hidden = scaled(HIDDEN, width)
    classifier = nn.Sequential(
        nn.Linear(channels * height * width_px, hidden),
        activation(),
        nn.Linear(hidden, hidden),
        activation(),
        nn.Linear(hidden, num_classes),
    )
    return initialise(
        nn.Sequential(
            OrderedDict(
                features=nn.Sequential(*features), flatten=nn.Flatten(), classifier=classifier
            )
        )
    )
