"""ResNets of basic blocks (He et al., 2016) with a quantized activation passed in.

ResNet18 and ResNet34 have 64 to 512 channels; ResNet20 is the CIFAR one with 16 to 64, whose
shortcuts are 1x1 convolutions as in the official QCFS code. A block's two branches are summed
before its last activation, so the sum of their currents is what the neurons integrate.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from toolchain.models.parts import ActivationFactory, check_image, initialise, pool, scaled

LARGE = 128
"""From this image size on, ResNet18 and 34 start with a strided 7x7 convolution and a pool."""


@dataclass(frozen=True)
class ResNetPlan:
    """Channels of the stages, blocks a stage, and whether large images get a reducing stem."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    reduces_large_images: bool


PLANS: dict[str, ResNetPlan] = {
    "resnet18": ResNetPlan((64, 128, 256, 512), (2, 2, 2, 2), True),
    "resnet20": ResNetPlan((16, 32, 64), (3, 3, 3), False),
    "resnet34": ResNetPlan((64, 128, 256, 512), (3, 4, 6, 3), True),
}
"""He et al., table 1 and section 4.2 (n = 3)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the second activation follows the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: ActivationFactory):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        result: Tensor = self.activation(self.branch(x) + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """Stem, stages of basic blocks, global average pool, dense layer."""

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
        kernel, stride = (7, 2) if large else (3, 1)
        stem: list[nn.Module] = [
            nn.Conv2d(input_shape[0], first, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(first),
            activation(),
        ]
        if large:
            stem.append(pool(pooling, 3, 2, padding=1))
        self.stem = nn.Sequential(*stem)
        blocks: list[nn.Module] = []
        inputs = first
        for stage, (channels, count) in enumerate(zip(plan.channels, plan.blocks, strict=True)):
            outputs = scaled(channels, width)
            for index in range(count):
                step = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(inputs, outputs, step, activation))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, num_classes)

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
    """ResNet18, ResNet20 or ResNet34 for images (C, H, W) of at least 28 pixels.

    `pooling` concerns the stem's pool for large images; the last pool is always the average.
    """
    check_image(name, input_shape, 28)
    return initialise(ResNet(PLANS[name], input_shape, num_classes, activation, width, pooling))
