"""Networks of the user's that are trained: FILE.py:FACTORY or package.module:FACTORY as `model`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolchain.errors import CheckpointError, DataError, UnsupportedModuleError
from toolchain.files import file_sha256
from toolchain.learning.activations import QuantizedActivation
from toolchain.learning.training.quantize import START, outputs_of, with_quantized_activations
from toolchain.learning.training.settings import PLAIN_RELU
from toolchain.learning.training.state_dict import load_weights
from toolchain.user_code import Source, load_source

if TYPE_CHECKING:
    from toolchain.learning.training.config import TrainConfig


def is_own(model: str) -> bool:
    """Whether `model` names a factory, not one of `learning.models`."""
    return ":" in model


def with_hash(config: TrainConfig) -> TrainConfig:
    """The settings with the SHA-256 of the file that makes the network.

    Raises
    ------
    CheckpointError, UnsupportedModuleError
        If the file is missing, fails, or is not the one the settings were written with.
    """
    return replace(config, model_sha256=_loaded(config)[1]) if is_own(config.model) else config


def own_network(
    config: TrainConfig, sample_shape: tuple[int, ...], samples: Tensor | None = None
) -> nn.Module:
    """The network that `config.model` makes, with quantized activations where it has ReLUs.

    Parameters
    ----------
    samples:
        Normalised, float32 (N, ...), at the start of a training: `config.weights` are loaded, and
        thresholds chosen on them. Without samples both are left as they are made.

    Raises
    ------
    CheckpointError, UnsupportedModuleError, DataError
        If the file is missing or another one, or the network cannot be made, does not take the
        weights or the samples, or has other activations than `config` says.
    """
    source, _ = _loaded(config)
    model = made(source, config.model.rpartition(":")[2], config.model).float()
    if samples is not None and config.weights is not None:
        load_weights(model, Path(config.weights))
    has = {m.kind: m.levels for m in model.modules() if isinstance(m, QuantizedActivation)}
    if has and has != {config.activation: config.levels}:
        raise DataError(
            "the network has quantized activations, and others than the settings",
            node=config.model,
            found=", ".join(f'activation="{k}", levels={v}' for k, v in has.items()),
            allowed=f'activation="{config.activation}", levels={config.levels}',
            remedy="give those that it has, or nn.ReLU in their place",
        )
    if has or config.activation == PLAIN_RELU:
        return model
    start = None if samples is None else START
    x = torch.rand(2, *sample_shape) if samples is None else samples
    return with_quantized_activations(model, config.activation, config.levels, x, start)


def check_classes(model: nn.Module, samples: Tensor, num_classes: int, node: str) -> None:
    """Raise DataError unless the network gives a number for each class of samples (N, ...)."""
    found = tuple(outputs_of(model, samples).shape)
    if found[1] < num_classes:
        raise DataError(
            "the network has fewer outputs than the data have classes",
            node=node,
            found=f"{found[1]} outputs",
            allowed=f"{num_classes} classes",
        )


def made(source: Source, factory: str, node: str) -> nn.Module:
    """The module that a user's factory returns.

    Raises
    ------
    UnsupportedModuleError
        If there is no such factory, it fails, or returns something else.
    """
    model = source.call(factory)
    if not isinstance(model, nn.Module):
        raise UnsupportedModuleError(
            "the factory must return an nn.Module", node=node, found=type(model).__name__
        )
    return model


def _loaded(config: TrainConfig) -> tuple[Source, str | None]:
    """The source of a network, and its file's SHA-256, held against that of the settings."""
    name = config.model.rpartition(":")[0]
    if name.endswith(".py") and not Path(name).is_file():
        raise CheckpointError(
            "the file that makes the network is not there",
            node=name,
            remedy="run the command in the folder that the network was trained from",
        )
    source = load_source(name)
    found = None if source.file is None else file_sha256(source.file)
    if config.model_sha256 not in (None, found):
        raise CheckpointError(
            "the file that makes the network has changed since the training began",
            node=name,
            found=f"SHA-256 {found}",
            allowed=config.model_sha256,
            remedy="put the file back as it was, or train again in another folder=",
        )
    return source, found
