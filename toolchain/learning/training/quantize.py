"""ReLUs of a network replaced by quantized activations, each call by one of its own.

A ReLU module that is called once is exchanged where it stands. A module whose forward calls a
ReLU several times, or calls one as a function, becomes a `torch.fx.GraphModule`; all other modules
stay as they are, with their names and parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from math import floor, inf

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import (
    check_readable,
    in_evaluation,
    output_list,
    unwrapped,
)
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import (
    ACTIVATIONS,
    ActivationMode,
    QuantizedActivation,
    activation_mode,
)
from toolchain.learning.training.inference import batches, side_by_side
from toolchain.learning.training.relu_calls import ReluCalls, part_shared, put, rewritten_calls
from toolchain.user_code import home_of, share_home, user_code

START = 99.9
"""Percentile of a ReLU's outputs at which its threshold starts."""
FEW = 2
"""Samples on which calls are found and outputs are compared."""
SAME = 1e-4
"""Largest difference of outputs, relative to the largest output."""
FORMS = "nn.ReLU, nn.ReLU6, nn.Hardtanh(0, a), their functions, clamp from 0 on"


def with_quantized_activations(
    model: nn.Module, activation: str, levels: int, samples: Tensor, percentile: float | None
) -> nn.Module:
    """A copy of `model` with quantized activations in place of its ReLUs (`FORMS`).

    A ReLU whose output the network returns stays, since conversion leaves it out.

    Parameters
    ----------
    activation:
        Name of one of `ACTIVATIONS`.
    samples:
        What the network takes, (N, ...), on its device.
    percentile:
        Where thresholds start: at this percentile of a ReLU's inputs (100 is the maximum), but not
        above the bound of a ReLU that clips. None leaves them at their usual start.

    Raises
    ------
    UnsupportedModuleError
        If there is no ReLU, the network fails on the samples, or a forward cannot be rewritten.
    DataError
        If a setting cannot be meant, or a ReLU's inputs are never positive.
    """
    if activation not in ACTIVATIONS:
        raise DataError("no such activation", node=activation, allowed=", ".join(ACTIVATIONS))
    if levels < 1:
        raise DataError("levels must be at least 1", node="quantize", found=levels)
    if percentile is not None and not 0 < percentile <= 100:
        raise DataError("a percentile lies in (0, 100]", node="percentile", found=percentile)
    model = unwrapped(model)
    check_readable(model)
    with user_code("the network cannot be copied", type(model).__name__, home_of(model)):
        copied = deepcopy(model)
    part_shared(copied)
    before = outputs_of(copied, samples[:FEW])
    calls = ReluCalls(copied)
    with calls:
        outputs_of(copied, samples[:FEW])
    bounds: dict[nn.Module, float] = {}

    def new(bound: float) -> QuantizedActivation:
        made = ACTIVATIONS[activation](levels).to(samples.device)
        bounds[made] = bound
        return made

    for path, bound in calls.modules.items():
        put(copied, path, new(bound))
    for path in sorted(calls.owners, key=len, reverse=True):
        rewritten = rewritten_calls(
            copied.get_submodule(path), path or type(model).__name__, bounds, new
        )
        if path:
            put(copied, path, rewritten)
        else:
            copied = rewritten
    placed = {
        name: module
        for name, module in copied.named_modules()
        if isinstance(module, QuantizedActivation) and module in bounds
    }
    for path in _final(copied, placed, samples[:FEW]):
        if bounds[placed[path]] == inf:
            del placed[path]
            put(copied, path, nn.ReLU())
    if not placed:
        raise UnsupportedModuleError(
            "the network has no ReLU to be replaced", node=type(model).__name__, allowed=FORMS
        )
    with _as_relu(placed, bounds):
        _check_same(before, outputs_of(copied, samples[:FEW]), type(model).__name__)
    if percentile is not None:
        start_thresholds(copied, placed, samples, percentile, bounds)
    share_home(model, copied)
    return copied


def start_thresholds(
    model: nn.Module,
    activations: Mapping[str, QuantizedActivation],
    samples: Tensor,
    percentile: float,
    bounds: Mapping[nn.Module, float] | None = None,
) -> None:
    """Set thresholds to percentiles of what these activations of `model` give as ReLUs.

    Parameters
    ----------
    activations:
        By path.
    samples, percentile:
        As in `with_quantized_activations`.
    bounds:
        Of ReLUs that clip.

    Raises
    ------
    DataError
        If an activation's inputs are never positive.
    """
    with _as_relu(activations, bounds or {}):
        top = _percentiles(model, activations, samples, percentile)
    for path, module in activations.items():
        if top[path] <= 0:
            raise DataError(
                "the inputs of a ReLU are never positive on the calibration samples",
                node=path,
                remedy="calibrate with more samples, and with those that the network is for",
            )
        module.threshold.data.fill_(top[path])


@torch.no_grad()
def outputs_of(model: nn.Module, samples: Tensor) -> Tensor:
    """Outputs for samples (N, ...) in evaluation mode, side by side (N, P).

    Raises
    ------
    UnsupportedModuleError
        If the forward fails.
    """
    guard = user_code("the network's forward fails", type(model).__name__, home_of(model))
    with guard, in_evaluation(model):
        # A copy: the network may write into its input.
        return side_by_side(model(samples.clone()))


@torch.no_grad()
def _final(
    model: nn.Module, placed: Mapping[str, QuantizedActivation], samples: Tensor
) -> list[str]:
    """Paths of activations whose output the network returns: conversion leaves ReLUs there out."""
    last: dict[str, Tensor] = {}
    with _hooked(placed, last.__setitem__), in_evaluation(model):
        returned = output_list(model(samples.clone()))
    return [path for path, output in last.items() if any(output is other for other in returned)]


@contextmanager
def _hooked(
    placed: Mapping[str, QuantizedActivation], keep: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call `keep` with the path and output of each activation that runs inside the block."""

    def hook(path: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: keep(path, output)

    handles = [module.register_forward_hook(hook(path)) for path, module in placed.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _as_relu(
    activations: Mapping[str, QuantizedActivation], bounds: Mapping[nn.Module, float]
) -> Iterator[None]:
    """These activations clip at their bounds only, inside the block."""
    held = [(module, module.threshold.data.clone()) for module in activations.values()]
    try:
        for module, _ in held:
            module.threshold.data.fill_(bounds.get(module, inf))
        with activation_mode(nn.ModuleList(activations.values()), ActivationMode.CLIPPED):
            yield
    finally:
        for module, threshold in held:
            module.threshold.data.copy_(threshold)


def _check_same(before: Tensor, after: Tensor, node: str) -> None:
    """Raise UnsupportedModuleError if the network computes something else with its ReLUs out."""
    largest = float((before - after).abs().max())
    if not largest <= SAME * max(1.0, float(before.abs().max())):
        raise UnsupportedModuleError(
            "a ReLU writes into a tensor that is read again, or the network is random",
            node=node,
            found=f"outputs differ by {largest:.3g} when its ReLUs are taken out",
            remedy="use the form that is not in-place (inplace=False)",
        )


def _percentiles(
    model: nn.Module,
    placed: Mapping[str, QuantizedActivation],
    samples: Tensor,
    percentile: float,
) -> dict[str, float]:
    """A percentile of each activation's outputs, by path: the value of a rank, rounded up.

    It is the maximum where the percentile is 0. Only the largest values are held at any time.
    """
    top: dict[str, Tensor] = {}

    def keep(path: str, output: Tensor) -> None:
        total = len(samples) * output[0].numel()
        count = floor((1 - percentile / 100) * (total - 1)) + 1
        values = torch.cat((top.get(path, output.new_empty(0)), output.flatten()))
        top[path] = values.topk(min(count, len(values))).values

    with _hooked(placed, keep):
        for batch in batches(samples):
            outputs_of(model, batch)
    return {
        path: float(values[-1]) if values[-1] > 0 else float(values[0])
        for path, values in top.items()
    }
