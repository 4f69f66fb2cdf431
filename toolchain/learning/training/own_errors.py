"""Training on the errors of the spiking network itself, in place of NQ's noise.

Each activation gives what its IF neurons send on the same batch, as mean over the steps; gradients
pass as those of QCFS at the mean current, `z`. Linear layers commute with the mean, so the trained
network computes the outputs of the spiking one, as mean over the steps (a max pool does not; the
activation behind it still gives what its neurons send). The network runs as in evaluation
(BatchNorm with its statistics, no dropout), since both passes must be the same function. So it is
trained on the errors of its T steps with all their correlations, where NQ draws independent noise
of the same variance.

Related: Wu et al., "A Tandem Learning Rule for Effective Training and Rapid Inference of Deep
Spiking Neural Networks" (IEEE TNNLS 2021), in which a network of activations follows spike counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import in_evaluation
from toolchain.errors import DataError, TrainingError
from toolchain.learning.activations import QuantizedActivation
from toolchain.learning.training.noise import run_spiking


class _Given(torch.autograd.Function):
    """A value in place of another, which gets the gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, given: Tensor) -> Any:
        return given.view_as(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


@contextmanager
def own_errors(
    model: nn.Module, samples: Tensor, num_steps: int, *, per_step: bool = False
) -> Iterator[None]:
    """Within, each activation of `model` gives the mean output of its IF neurons on `samples`.

    Parameters
    ----------
    samples:
        Normalised, float (n, ...): what the network must be called with inside, once.
    num_steps:
        T: the spiking network runs for as many steps, at T times the cost of a forward.
    per_step:
        Whether `samples` are sequences, (n, T, ...), of which the spiking network gets one tensor
        in each step. The network must be called with their means over T.

    Raises
    ------
    DataError
        If `num_steps` is less than 1.
    TrainingError
        If one activation is called several times in a forward: it has one output a batch here.
    """
    if num_steps < 1:
        raise DataError("steps must be at least 1", node="own_errors", found=num_steps)
    with torch.no_grad(), in_evaluation(model):
        rates, _ = run_spiking(model, samples, num_steps, per_step=per_step)

    def replace(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Any:
            if name not in rates:
                raise TrainingError(
                    "an activation is called several times in a forward",
                    node=name,
                    remedy="give each call an activation of its own",
                )
            return _Given.apply(output, rates.pop(name).to(output.dtype))  # type: ignore[no-untyped-call]

        return hook

    activations = [(n, m) for n, m in model.named_modules() if isinstance(m, QuantizedActivation)]
    handles = [module.register_forward_hook(replace(name)) for name, module in activations]
    try:
        with in_evaluation(model):
            yield
    finally:
        for handle in handles:
            handle.remove()
