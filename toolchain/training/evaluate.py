"""Accuracy of a network in any of its modes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.activations import Mode, activation_mode
from toolchain.data import Dataset

BATCH = 256


def normalised(dataset: Dataset, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Real samples, float32 (N, ...), minus mean and divided by std along the channel axis."""
    x = torch.from_numpy(dataset.real())
    shape = (1, -1, *([1] * (x.ndim - 2)))
    return (x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)


def batches(x: Tensor, size: int = BATCH) -> Iterator[Tensor]:
    """Consecutive slices of at most `size` samples."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, mode: Mode, num_steps: int = 1) -> Tensor:
    """Outputs (N, K) in evaluation mode; in spiking mode summed over `num_steps` steps."""
    was_training = model.training
    model.eval()
    outputs = []
    try:
        with activation_mode(model, mode, num_steps):
            for batch in batches(x):
                if mode is Mode.SPIKING:
                    repeated = batch.repeat(num_steps, *([1] * (batch.ndim - 1)))
                    out = model(repeated)
                    outputs.append(out.reshape(num_steps, len(batch), -1).sum(0))
                else:
                    outputs.append(model(batch))
    finally:
        model.train(was_training)
    return torch.cat(outputs)


def accuracy(outputs: Tensor | np.ndarray, labels: np.ndarray) -> float:
    """Fraction of samples whose largest output (lowest index on ties) is the label."""
    return float((np.argmax(np.asarray(outputs), axis=1) == labels).mean())
