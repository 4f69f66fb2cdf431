"""Networks with a quantized activation passed in, built by name.

`build_model("lenet", ...)` is what `spikeport train --model lenet` calls; a new network is one
file and one line in `MODELS`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from toolchain.errors import DataError
from toolchain.models.lenet import lenet
from toolchain.models.mlp import mlp

ActivationFactory = Callable[[], nn.Module]
ModelFactory = Callable[[tuple[int, ...], int, ActivationFactory, float], nn.Module]

MODELS: dict[str, ModelFactory] = {"lenet": lenet, "mlp": mlp}


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
) -> nn.Module:
    """The network called `name` for samples of `input_shape`.

    Raises
    ------
    DataError
        If there is no such network, or it does not take this input shape.
    """
    if name not in MODELS:
        raise DataError("no such model", node=name, allowed=", ".join(sorted(MODELS)))
    return MODELS[name](input_shape, num_classes, activation, width)


__all__ = ["MODELS", "build_model"]
