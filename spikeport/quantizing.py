"""`quantize` and `calibrate_noise`: what a training loop of the user's own needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spikeport.given_network import described
from spikeport.samples import open_samples
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import NQ
from toolchain.learning.data import Samples
from toolchain.learning.training.inference import normalise
from toolchain.learning.training.noise import compare_with_spiking, set_sigma
from toolchain.learning.training.quantize import START, with_quantized_activations
from toolchain.user_code import home_of, user_code

if TYPE_CHECKING:
    from spikeport.samples import Data


def quantize(
    model: nn.Module,
    activation: str = "nq",
    levels: int = 4,
    *,
    calibrate: Data | None = None,
    input_shape: int | Sequence[int] | None = None,
    percentile: float = START,
    calibration_samples: int = 256,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` with quantized activations in place of its ReLUs, for training.

    ReLUs are nn.ReLU, nn.ReLU6, nn.Hardtanh(0, a), their functions and methods, and clamp from 0
    on. Each call gets an activation of its own. `model` stays as it is; names of parameters too.

    Parameters
    ----------
    activation:
        "nq", "qcfs" or "cqrelu".
    levels:
        Quantization levels L (Q for CQReLU).
    calibrate:
        Samples on which thresholds start, in any form that `convert` takes. Without any, they
        start as in the papers: at 8, CQReLU's at 1. CQReLU's is not trained.
    input_shape:
        Shape of a sample, where there are no calibration samples.
    percentile:
        A threshold starts at this percentile of its ReLU's outputs; 100 is their maximum.
    calibration_samples:
        How many samples are used, chosen by `seed`.
    mean, std:
        The network takes (value - mean) / std; one number per channel, or one for all.

    Raises
    ------
    UnsupportedModuleError
        If there is no ReLU, the network fails on the samples, or a forward cannot be rewritten.
    DataError
        If there are neither samples nor a shape, or a setting cannot be meant.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModuleError(
            "no network", found=type(model).__name__, allowed="an nn.Module"
        )
    said = described(input_shape, mean=mean, std=std)
    if calibrate is not None:
        samples = open_samples(calibrate, split="train", most=calibration_samples, seed=seed)
        assert isinstance(samples, Samples)
        x = normalise(torch.from_numpy(samples.real()).float(), said.mean, said.std)
    elif said.shape is not None:
        x = torch.rand(2, *said.shape, generator=torch.Generator().manual_seed(seed))
    else:
        raise DataError(
            "samples are needed, or the shape of one",
            node="quantize",
            remedy="calibrate=DATA, or input_shape=(3, 32, 32)",
        )
    first = next(model.parameters(), torch.empty(0))
    x = x.to(first.device, first.dtype)
    start = None if calibrate is None else percentile
    return with_quantized_activations(model, activation, levels, x, start)


def calibrate_noise(
    model: nn.Module, loader: Iterable[Tensor | Sequence[Tensor]], steps: int
) -> dict[str, float]:
    """Set the noise of every NQ activation to the error that spikes will make in its place.

    Called after each epoch with held-out samples, as in the paper: `sigma` of a layer is the
    standard deviation of the difference between its output and the mean output of IF neurons over
    `steps` steps, each on its own propagated input. Nothing else of `model` changes.

    Parameters
    ----------
    loader:
        A DataLoader, or other batches of what the network takes, (N, ...), float; or of pairs of
        that and labels.
    steps:
        Time steps T of the spiking network.

    Returns
    -------
    `sigma` by the path of its activation, in units of the activation's output.

    Raises
    ------
    UnsupportedModuleError
        If the network has no NQ activation, or its forward fails.
    DataError
        If there is no batch, or `steps` is less than 1.
    """
    node = type(model).__name__
    if not any(isinstance(module, NQ) for module in model.modules()):
        raise UnsupportedModuleError(
            "the network has no NQ activation", node=node, remedy='spikeport.quantize(model, "nq")'
        )
    if steps < 1:
        raise DataError("steps must be at least 1", node="calibrate_noise", found=steps)
    like = next(model.parameters(), torch.empty(0))
    samples = (batch if isinstance(batch, Tensor) else batch[0] for batch in loader)
    first = next(samples, None)
    if first is None:
        raise DataError("no samples", node="calibrate_noise")
    batches = (batch.to(like) for batch in chain([first], samples))
    with user_code("the network's forward fails", node, home_of(model)):
        found = compare_with_spiking(model, batches, steps)
    return set_sigma(model, found.residual_std)
