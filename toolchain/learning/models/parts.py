"""What the image networks share: pools by name, scaled channel counts, starting values."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from toolchain.errors import DataError

ActivationFactory = Callable[[], nn.Module]
POOLINGS = ("average", "max")


def pool(kind: str, kernel: int, stride: int | None = None, padding: int = 0) -> nn.Module:
    """A square pool over windows of `kernel` pixels; `kind` is one of `POOLINGS`.

    Raises
    ------
    DataError
        If there is no such pool.
    """
    if kind not in POOLINGS:
        raise DataError("no such pooling", node=kind, allowed=", ".join(POOLINGS))
    chosen = nn.AvgPool2d if kind == "average" else nn.MaxPool2d
    return chosen(kernel, stride or kernel, padding)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 1."""
    return max(1, round(channels * width))


def check_image(model: str, input_shape: tuple[int, ...], minimum: int) -> None:
    """Raise DataError unless samples are images of (C, H, W) with H and W at least `minimum`."""
    if len(input_shape) != 3 or min(input_shape[1:]) < minimum:
        raise DataError(
            f"{model} takes images of (C, H, W)",
            node=model,
            found=input_shape,
            allowed=f"H and W >= {minimum}",
            remedy='use model="lenet" for smaller images, model="mlp" for vectors',
        )


def initialise(model: nn.Module) -> nn.Module:
    """He initialisation of convolutions over their outputs; dense layers keep torch's weights.

    Source: He et al., "Delving Deep into Rectifiers" (2015), as VGG and ResNet implementations
    use it; without it a deep network of clipped activations starts without a signal.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return model


def as_torch_starts(model: nn.Module) -> nn.Module:
    """Draw the weights of all layers anew, from the distributions that torch's modules start with.

    The official NQ code trains from these.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return model
