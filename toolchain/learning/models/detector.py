"""Single-scale detectors in the manner of YOLO (Redmon et al., 2016), anchor-free.

    backbone -> neck -> head -> maps of classes and of boxes, one cell every `stride` pixels

Backbones end where they reach the stride. Necks: `spp`, spatial pyramid pooling (max pools of 5, 9
and 13 cells beside the features, concatenated; He et al., 2015, as YOLOv3-SPP arranges it), or
`dilated`, residual blocks of growing dilation (YOLOF; Chen et al., 2021), whose sums have no
activation behind them: the next block takes spikes of both branches at once. Heads: `decoupled`,
two branches of two convolutions (YOLOX; Ge et al., 2021), or `plain`, one convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from toolchain.errors import DataError
from toolchain.learning.data.boxes import BOX_SIDES
from toolchain.learning.models.parts import ActivationFactory, initialise, pool, scaled
from toolchain.learning.models.resnet import PLANS, residual_blocks, stem
from toolchain.learning.models.vgg import CONFIGURATIONS, POOL

BACKBONES = ("resnet18", "resnet34", "resnet50", "vgg11", "vgg16")
STAGES = {16: 3, 32: 4}
"""Stages of a residual network up to each stride."""
POOLED = (5, 9, 13)
"""Sides of the neck's max pools, in cells (YOLOv3-SPP)."""
DILATIONS = (2, 4, 6, 8)
"""Of the residual blocks (YOLOF, section 3.3)."""
NECK_CHANNELS = 256
PRIOR = 0.01
"""Score that every class starts with (Lin et al., "Focal Loss", 2017, section 4.1)."""
STARTING_REACH = 2.0
"""Cells from a cell's middle to each side of the boxes it starts with."""


def backbone(
    name: str, channels: int, stride: int, activation: ActivationFactory, width: float, pooling: str
) -> tuple[nn.Module, int]:
    """Layers of a classifier up to `stride`, and how many channels they give.

    Raises
    ------
    DataError
        If there is no such backbone or stride.
    """
    if name not in BACKBONES:
        raise DataError("no such backbone", node=name, allowed=", ".join(BACKBONES))
    if stride not in STAGES:
        raise DataError("no such stride", node=name, found=stride, allowed="16 or 32")
    if name in PLANS:
        first, stages = scaled(PLANS[name].channels[0], width), STAGES[stride]
        blocks, outputs = residual_blocks(PLANS[name], first, stages, activation, width)
        start = stem(channels, first, activation, pooling, large=True)
        return nn.Sequential(*start, *blocks), outputs
    layers: list[nn.Module] = []
    reached = 1
    for count in CONFIGURATIONS[name]:
        if count == POOL:
            layers.append(pool(pooling, 2))
            reached *= 2
            if reached == stride:
                break
            continue
        layers += _convolution(channels, scaled(count, width), 3, activation)
        channels = scaled(count, width)
    return nn.Sequential(*layers), channels


def _convolution(
    inputs: int, outputs: int, kernel: int, activation: ActivationFactory, dilation: int = 1
) -> list[nn.Module]:
    """Convolution that keeps the size, BatchNorm and activation."""
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    ]


class PyramidPooling(nn.Module):
    """`spp`: features beside their maxima over three windows, joined by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, activation: ActivationFactory) -> None:
        super().__init__()
        inner = max(1, inputs // 2)
        self.reduce = nn.Sequential(*_convolution(inputs, inner, 1, activation))
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in POOLED)
        joined = inner * (1 + len(POOLED))
        self.join = nn.Sequential(*_convolution(joined, outputs, 1, activation))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h, w)."""
        x = self.reduce(x)
        result: Tensor = self.join(torch.cat([x, *(p(x) for p in self.pools)], 1))
        return result


class DilatedBlock(nn.Module):
    """A bottleneck with a dilated convolution, added to what comes in; no activation behind it."""

    def __init__(self, channels: int, dilation: int, activation: ActivationFactory) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.branch = nn.Sequential(
            *_convolution(channels, inner, 1, activation),
            *_convolution(inner, inner, 3, activation, dilation),
            *_convolution(inner, channels, 1, activation),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        result: Tensor = x + self.branch(x)
        return result


def _dilated(inputs: int, outputs: int, activation: ActivationFactory) -> nn.Module:
    project = nn.Sequential(*_convolution(inputs, outputs, 1, activation))
    blocks = (DilatedBlock(outputs, d, activation) for d in DILATIONS)
    return nn.Sequential(project, *blocks)


NECKS: dict[str, Callable[[int, int, ActivationFactory], nn.Module]] = {
    "spp": PyramidPooling,
    "dilated": _dilated,
}


class DecoupledHead(nn.Module):
    """Two branches: (class scores (N, K, h, w), box sides (N, 4, h, w))."""

    def __init__(self, channels: int, num_classes: int, activation: ActivationFactory) -> None:
        super().__init__()

        def branch() -> nn.Module:
            convolutions = (_convolution(channels, channels, 3, activation) for _ in range(2))
            return nn.Sequential(*(layer for layers in convolutions for layer in layers))

        self.class_branch, self.box_branch = branch(), branch()
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.boxes = nn.Conv2d(channels, BOX_SIDES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of scores before the sigmoid, and of sides as `geometry.decode` takes them."""
        return self.classes(self.class_branch(x)), self.boxes(self.box_branch(x))

    def start(self) -> None:
        """Set the biases that training begins with."""
        assert self.classes.bias is not None
        assert self.boxes.bias is not None
        nn.init.constant_(self.classes.bias, _log_odds(PRIOR))
        nn.init.constant_(self.boxes.bias, math.log(STARTING_REACH))


class PlainHead(nn.Module):
    """One convolution for both: (N, K + 4, h, w), the classes first."""

    def __init__(self, channels: int, num_classes: int, activation: ActivationFactory) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.both = nn.Conv2d(channels, num_classes + BOX_SIDES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, K + 4, h, w) of features (N, C, h, w)."""
        result: Tensor = self.both(x)
        return result

    def start(self) -> None:
        """Set the biases that training begins with."""
        assert self.both.bias is not None
        nn.init.constant_(self.both.bias[: self.num_classes], _log_odds(PRIOR))
        nn.init.constant_(self.both.bias[self.num_classes :], math.log(STARTING_REACH))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


HEADS: dict[str, type[DecoupledHead] | type[PlainHead]] = {
    "decoupled": DecoupledHead,
    "plain": PlainHead,
}


class Detector(nn.Module):
    """Backbone, neck and head; returns what the head does."""

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, head: DecoupledHead | PlainHead
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Maps for images (N, 3, H, W)."""
        result: Tensor | tuple[Tensor, Tensor] = self.head(self.neck(self.backbone(x)))
        return result


def build_detector(
    parts: tuple[str, str, str],
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    *,
    stride: int,
    width: float = 1.0,
    pooling: str = "max",
) -> Detector:
    """A detector of (backbone, neck, head), initialised from torch's global generator.

    Raises
    ------
    DataError
        If there is no such part, or the input size is no multiple of the stride.
    """
    name, neck, head = parts
    for what, chosen, allowed in (("neck", neck, NECKS), ("head", head, HEADS)):
        if chosen not in allowed:
            raise DataError(f"no such {what}", node=chosen, allowed=", ".join(allowed))
    check_input_size(input_shape, stride)
    features, channels = backbone(name, input_shape[0], stride, activation, width, pooling)
    inner = scaled(NECK_CHANNELS, width)
    made = HEADS[head](inner, num_classes, activation)
    neck_layers = NECKS[neck](channels, inner, activation)
    detector = Detector(features, neck_layers, made)
    initialise(detector)
    made.start()
    return detector


def check_input_size(input_shape: tuple[int, ...], stride: int) -> None:
    """Raise DataError unless both sides of images (C, H, W) are multiples of the stride."""
    sides = input_shape[:0:-1]  # width, height
    if len(sides) != 2 or any(side % stride or side < 2 * stride for side in sides):
        near = [max(2, round(side / stride)) * stride for side in sides]
        raise DataError(
            "the input size must be a multiple of the detector's stride",
            node="input",
            found=f"{'x'.join(map(str, sides))} (width x height) with stride {stride}",
            allowed=f"such as {'x'.join(map(str, near))}",
            remedy="input_size=, or another stride=",
        )


__all__ = ["BACKBONES", "HEADS", "NECKS", "STAGES", "Detector", "build_detector"]
