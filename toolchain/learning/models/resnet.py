"""ResNets (He et al., 2016) with a quantized activation passed in.

ResNet18 and ResNet34 have 64 to 512 channels, ResNet50 bottlenecks with four times those at their
ends; ResNet20 is the CIFAR one with 16 to 64, whose
shortcuts are 1x1 convolutions as in the official QCFS code. A block's two branches are summed
before its last activation, so the sum of their currents is what the neurons integrate.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from toolchain.learning.models.parts import ActivationFactory, check_image, initialise, pool, scaled

LARGE = 128
"""From this image size on, all but ResNet20 start with a strided 7x7 convolution and a pool."""


@dataclass(frozen=True)
class ResNetPlan:
    """Channels of the stages, blocks per stage, and whether large images get a reducing stem.

    `expansion`: outputs of a block for each of the stage's channels; 4 means bottlenecks.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    reduces_large_images: bool
    expansion: int = 1


PLANS: dict[str, ResNetPlan] = {
    "resnet18": ResNetPlan((64, 128, 256, 512), (2, 2, 2, 2), True),
    "resnet20": ResNetPlan((16, 32, 64), (3, 3, 3), False),
    "resnet34": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), True),
    "resnet50": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), True, expansion=4),
}
"""He et al., table 1 and section 4.2 (n = 3)."""


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size but for its stride, and BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """A branch and a shortcut; the block's activation follows their sum."""

    def __init__(
        self,
        branch: list[nn.Module],
        inputs: int,
        outputs: int,
        stride: int,
        activation: ActivationFactory,
    ):
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*_normalised(inputs, outputs, 1, stride))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        result: Tensor = self.activation(self.branch(x) + self.shortcut(x))
        return result


def _branch(
    plan: ResNetPlan, inputs: int, channels: int, stride: int, activation: ActivationFactory
) -> list[nn.Module]:
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1; of these the 3x3 one strides (torchvision)."""
    if plan.expansion == 1:
        first = [*_normalised(inputs, channels, 3, stride), activation()]
        return [*first, *_normalised(channels, channels, 3)]
    return [
        *_normalised(inputs, channels, 1),
        activation(),
        *_normalised(channels, channels, 3, stride),
        activation(),
        *_normalised(channels, channels * plan.expansion, 1),
    ]


def stem(
    inputs: int, outputs: int, activation: ActivationFactory, pooling: str, *, large: bool
) -> list[nn.Module]:
    """The first layers: a strided 7x7 convolution and a pool for large images, else a 3x3 one."""
    kernel, stride = (7, 2) if large else (3, 1)
    layers = [*_normalised(inputs, outputs, kernel, stride), activation()]
    return [*layers, pool(pooling, 3, 2, padding=1)] if large else layers


def residual_blocks(
    plan: ResNetPlan, inputs: int, stages: int, activation: ActivationFactory, width: float
) -> tuple[list[nn.Module], int]:
    """Blocks of the first `stages` stages, and how many channels the last gives."""
    blocks: list[nn.Module] = []
    for stage, (count, number) in enumerate(
        zip(plan.channels[:stages], plan.blocks[:stages], strict=True)
    ):
        channels = scaled(count, width)
        outputs = channels * plan.expansion
        for index in range(number):
            stride = 2 if stage > 0 and index == 0 else 1
            branch = _branch(plan, inputs, channels, stride, activation)
            blocks.append(ResidualBlock(branch, inputs, outputs, stride, activation))
            inputs = outputs
    return blocks, inputs


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pool, dense layer."""

    def __init__(
        self,
        plan: ResNetPlan,
        input_shape: tuple[int, ...],
        num_classes: int,
        activation: ActivationFactory,
        width: float,
        pooling: str,
    ) -> None:
        super().__init__()
        first = scaled(plan.channels[0], width)
        large = plan.reduces_large_images and min(input_shape[1:]) >= LARGE
        self.stem = nn.Sequential(*stem(input_shape[0], first, activation, pooling, large=large))
        blocks, outputs = residual_blocks(plan, first, len(plan.blocks), activation, width)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(outputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) for images (N, C, H, W)."""
        features = self.pool(self.blocks(self.stem(x)))
        result: Tensor = self.classifier(self.flatten(features))
        return result


def resnet(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """The ResNet called `name` for images (C, H, W) of at least 28 pixels.

    `pooling` concerns the stem's pool for large images; the last pool is always the average.
    """
    check_image(name, input_shape, 28)
    return initialise(ResNet(PLANS[name], input_shape, num_classes, activation, width, pooling))
