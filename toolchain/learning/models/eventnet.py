"""A small network for frames of event cameras: convolutions with stride 2, one dense layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from toolchain.learning.models.parts import ActivationFactory, check_image, scaled

MINIMUM_SIZE = 4
CHANNELS = (16, 32, 64)
LAST_SIZE = 8
"""Pixels along the longer side that the last convolution leaves at most."""


def eventnet(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """Convolutions 3x3 with stride 2, then a dense layer; samples (C, H, W), H and W >= 4.

    Two convolutions, or as many as leave at most 8x8 pixels: three of 34x34, four of 128x128. They
    have 16, 32, 64 and again 64 channels, times `width`. It has no pools, so that few pixels with
    events stay few spikes.
    """
    check_image("eventnet", input_shape, MINIMUM_SIZE)
    inputs, *size = input_shape
    layers: list[nn.Module] = []
    count = 0
    while count < 2 or max(size) > LAST_SIZE:
        outputs = scaled(CHANNELS[min(count, len(CHANNELS) - 1)], width)
        layers += [
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
        ]
        size = [(side + 1) // 2 for side in size]
        inputs, count = outputs, count + 1
    classifier = nn.Linear(inputs * size[0] * size[1], num_classes)
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier)
    )
