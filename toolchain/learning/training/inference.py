"""Outputs and accuracy of a network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import in_evaluation, output_list
from toolchain.errors import DataError
from toolchain.learning.activations import ActivationMode, activation_mode
from toolchain.learning.data import Dataset

BATCH = 128
"""Samples a pass, times the steps of a spiking one (which stays in the cache so)."""


def normalised(dataset: Dataset, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Real samples, float32 (N, ...), minus mean and divided by std along the channel axis."""
    axis = 1 if dataset.steps is None else 2
    return normalise(torch.from_numpy(dataset.real()).float(), mean, std, axis)


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...], axis: int = 1) -> Tensor:
    """Real values (N, C, ...) minus mean and divided by std along the channel axis.

    Sequences (N, T, C, ...) have it as `axis` 2.
    """
    shape = (*([1] * axis), -1, *([1] * (x.ndim - axis - 1)))
    return (x - x.new_tensor(mean).reshape(shape)) / x.new_tensor(std).reshape(shape)


def batches(x: Tensor, num_steps: int = 1) -> Iterator[Tensor]:
    """Consecutive slices, of a size at which `num_steps` steps of each sample make a pass."""
    size = max(1, BATCH // num_steps)
    for start in range(0, len(x), size):
        yield x[start : start + size]


def at_each_step(batch: Tensor, num_steps: int, *, per_step: bool = False) -> Tensor:
    """What a spiking network gets: samples (n, ...) as (num_steps * n, ...), step after step.

    With `per_step` the samples are sequences, (n, num_steps, ...).

    Raises
    ------
    DataError
        If sequences have another number of steps.
    """
    if per_step and batch.shape[1] != num_steps:
        raise DataError(
            "a sequence has one tensor for each step",
            node="spiking network",
            found=batch.shape[1],
            allowed=num_steps,
        )
    return torch.cat(batch.unbind(1) if per_step else [batch] * num_steps)


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, mode: ActivationMode) -> Tensor:
    """Outputs (N, K) in evaluation mode; several outputs, or images, lie side by side.

    Those of the spiking network are `evaluation.float_network.spiking_logits`.
    """
    with in_evaluation(model), activation_mode(model, mode):
        return torch.cat([side_by_side(model(batch)) for batch in batches(x)])


def side_by_side(outputs: Any) -> Tensor:
    """What a network returns, a tensor or several, as (n, P)."""
    return torch.cat([output.flatten(1) for output in output_list(outputs)], 1)


def accuracy(outputs: Tensor | np.ndarray, labels: np.ndarray) -> float:
    """Fraction of samples whose largest output (lowest index on ties) is the label."""
    return float(
        (
            np.argmax(np.asarray(outputs.cpu() if isinstance(outputs, Tensor) else outputs), axis=1)
            == labels
        ).mean()
    )
