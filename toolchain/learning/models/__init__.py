"""Networks with a quantized activation passed in, built by name.

`build_model("lenet", ...)` is what `spikeport train --model lenet` calls; a new network is one
file and one line in `MODELS`.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from typing import Protocol

from torch import nn

from toolchain.errors import DataError
from toolchain.learning.models.eventnet import eventnet
from toolchain.learning.models.lenet import lenet
from toolchain.learning.models.mlp import mlp
from toolchain.learning.models.parts import POOLINGS, ActivationFactory
from toolchain.learning.models.resnet import PLANS, resnet
from toolchain.learning.models.vgg import CONFIGURATIONS, vgg


class ModelFactory(Protocol):
    """Builds an untrained network for samples of `input_shape`."""

    def __call__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        activation: ActivationFactory,
        width: float = 1.0,
        pooling: str = "average",
    ) -> nn.Module:
        """The network, initialised from torch's global generator."""


MODELS: dict[str, ModelFactory] = {
    "eventnet": eventnet,
    "lenet": lenet,
    "mlp": mlp,
    **{name: partial(vgg, name) for name in CONFIGURATIONS},
    **{name: partial(resnet, name) for name in PLANS},
}


def build_model(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: ActivationFactory,
    width: float = 1.0,
    pooling: str = "average",
) -> nn.Module:
    """The network called `name` for samples of `input_shape`.

    Raises
    ------
    DataError
        If there is no such network or pooling, or it does not take this input shape.
    """
    check_name(name)
    return MODELS[name](input_shape, num_classes, activation, width, pooling)


def check_name(name: str) -> None:
    """Raise DataError, with the nearest names, if no network is called `name`."""
    if name not in MODELS:
        nearest = get_close_matches(name, MODELS)
        raise DataError(
            "no such model",
            node=name,
            allowed=", ".join(sorted(MODELS)),
            remedy=f"the nearest names are {', '.join(nearest)}" if nearest else None,
        )


__all__ = [
    "MODELS",
    "POOLINGS",
    "ActivationFactory",
    "ModelFactory",
    "build_model",
    "check_name",
]
