"""Networks that upsample, which neither torchvision nor timm has: U-Net and YOLOv3-tiny."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of U-Net from the first level down (Ronneberger et al., MICCAI 2015)."""
BOXES, OBJECTS = 3, 80
"""Boxes per cell, and classes of COCO, of YOLOv3-tiny (Redmon and Farhadi, 2018)."""


def _layer(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _transposed(inputs: int, outputs: int) -> nn.Module:
    return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)


def _nearest(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), _layer(inputs, outputs))


class _UNet(nn.Module):
    """U-Net with padded convolutions and BatchNorm; every step up is concatenated with its skip."""

    def __init__(self, classes: int, up: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        ways = list(pairwise(WIDTHS))
        self.down = nn.ModuleList(
            nn.Sequential(_layer(a, b), _layer(b, b)) for a, b in pairwise((3, *WIDTHS))
        )
        self.up = nn.ModuleList(up(b, a) for a, b in reversed(ways))
        self.joined = nn.ModuleList(
            nn.Sequential(_layer(2 * a, a), _layer(a, a)) for a, _ in reversed(ways)
        )
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, down in enumerate(self.down):
            x = down(self.pool(x) if level else x)
            skips.append(x)
        x = skips.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([skips.pop(), up(x)], 1))
        out: Tensor = self.out(x)
        return out


class _YoloTiny(nn.Module):
    """YOLOv3-tiny with ReLU in place of LeakyReLU; both heads, as maps."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 128, 256)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [_layer(a, b), nn.MaxPool2d(2)]
        self.first = nn.Sequential(*layers[:-1])
        same = (nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
        self.second = nn.Sequential(
            nn.MaxPool2d(2), _layer(256, 512), *same, _layer(512, 1024), _layer(1024, 256, 1)
        )
        outputs = BOXES * (5 + OBJECTS)
        self.large = nn.Sequential(_layer(256, 512), nn.Conv2d(512, outputs, 1))
        self.branch = nn.Sequential(_layer(256, 128, 1), nn.Upsample(scale_factor=2))
        self.small = nn.Sequential(_layer(384, 256), nn.Conv2d(256, outputs, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.first(x)
        x = self.second(skip)
        return self.large(x), self.small(torch.cat([self.branch(x), skip], 1))


def get_model(name: str, num_classes: int) -> nn.Module:
    """One of the networks by its name; YOLOv3-tiny has the classes of COCO."""
    made: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: _UNet(num_classes, _transposed),
        "unet_nearest": lambda: _UNet(num_classes, _nearest),
        "yolov3_tiny": _YoloTiny,
    }
    return made[name]()
