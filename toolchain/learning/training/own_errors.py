"""Training the spiking network itself, in place of NQ's noise, which stands for its errors.

The network runs over T steps with IF neurons, and gives the mean of its outputs; gradients pass
through all steps (`activations.spiking`). It runs as in evaluation, BatchNorm with its statistics
and no dropout, since all steps must see the same function: the one that is converted.

Sources: Wu et al., "Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural
Networks" (Frontiers in Neuroscience 2018), and Rathi et al., "Enabling Deep Spiking Neural Networks
with Hybrid Conversion and Spike Timing Dependent Backpropagation" (ICLR 2020), who begin with a
converted network, as here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import in_evaluation
from toolchain.errors import DataError
from toolchain.learning.activations import ActivationMode, activation_mode
from toolchain.learning.training.inference import at_each_step
from toolchain.torch_private import map_leaves


@contextmanager
def own_errors(
    model: nn.Module, num_steps: int, *, per_step: bool = False, noise: float = 0.0
) -> Iterator[None]:
    """Within, `model` is called with samples (n, ...) and gives the mean outputs of its IF neurons.

    The block may hold a forward, or a whole training loop; each forward runs as in evaluation.

    Parameters
    ----------
    num_steps:
        T: time and memory are those of a batch T times as large.
    per_step:
        Whether the samples are sequences, (n, T, ...), of which the network gets one tensor in
        each step.
    noise:
        Standard deviation of the potential that a neuron begins with, in thresholds, drawn anew for
        each forward that computes gradients. Without any, the network learns the exact timing of
        its spikes, which rounded weights change (docs/TRAINING.md).

    Raises
    ------
    DataError
        If `num_steps` is less than 1, `noise` is negative, sequences have another number of steps,
        or an output is neither a tensor (n, ...) nor None.
    """
    if num_steps < 1:
        raise DataError("steps must be at least 1", node="own_errors", found=num_steps)
    if not 0 <= noise < math.inf:
        raise DataError("noise must be at least 0", node="own_errors", found=noise)

    def repeated(value: Any) -> Any:
        is_batch = isinstance(value, Tensor) and value.ndim > 0
        return at_each_step(value, num_steps, per_step=per_step) if is_batch else value

    as_measured = ExitStack()

    def begin(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        as_measured.enter_context(in_evaluation(model))
        return map_leaves(repeated, (inputs, named))

    def mean(output: Any) -> Any:
        if isinstance(output, Tensor) and output.ndim > 0:
            return output.reshape(num_steps, -1, *output.shape[1:]).mean(0)
        if output is None:
            return None
        raise DataError(
            "an output has no values of each sample, whose mean over the steps would be trained",
            node=type(model).__name__,
            found="a scalar" if isinstance(output, Tensor) else type(output).__name__,
            allowed="tensors (n, ...), also in tuples, lists and dictionaries, or None",
            remedy="return the outputs, and compute a loss from them outside of the forward",
        )

    def end(_: nn.Module, __: Any, outputs: Any) -> Any:
        as_measured.close()
        return map_leaves(mean, outputs)

    with (
        as_measured,
        activation_mode(model, ActivationMode.SPIKING, num_steps, noise),
        model.register_forward_pre_hook(begin, with_kwargs=True),
        model.register_forward_hook(end),
    ):
        yield
