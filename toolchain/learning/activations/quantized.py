"""What all quantized activations share: parameters, and three ways to run.

- `QUANTIZED`: as trained (the quantized ANN).
- `CLIPPED`: `clip(z, 0, threshold)`, the float network that quantization approximates.
- `SPIKING`: IF neurons in float over `num_steps` steps, time folded into the batch axis
  (T * N, ...), step-major. Output: spikes times the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import torch
from torch import Tensor, nn

from toolchain.learning.activations.spiking import spiking


class ActivationMode(Enum):
    """How the activations of a network run."""

    QUANTIZED = "quantized"
    CLIPPED = "clipped"
    SPIKING = "spiking"


class QuantizedActivation(nn.Module):
    """Base class. Subclasses set `shift` and implement `quantized`.

    Attributes
    ----------
    threshold:
        `lam`, scalar tensor: the largest output, and the real value of one spike.
    levels:
        Number of quantization levels above 0.
    shift:
        Added before the floor, in levels; the initial potential in units of the threshold.
    start_noise:
        Standard deviation of the initial potentials in spiking mode, in thresholds, while gradients
        are computed.
    """

    shift: float
    kind: str
    threshold: Tensor
    start_noise: float = 0.0

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be >= 1, found {levels}")
        self.levels = levels
        self.mode = ActivationMode.QUANTIZED
        self.num_steps = 1

    def quantized(self, z: Tensor) -> Tensor:
        """The activation as trained, elementwise; TypeError if a subclass does not define it."""
        raise TypeError(f"{type(self).__name__} does not say how it quantizes")

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise; `z` is (N, ...), or (T * N, ...) in spiking mode."""
        if self.mode is ActivationMode.QUANTIZED:
            return self.quantized(z)
        if self.mode is ActivationMode.CLIPPED:
            return torch.minimum(z.clamp(min=0.0), self.threshold)
        shift = z.new_tensor(self.shift, dtype=self.threshold.dtype)
        if self.start_noise and torch.is_grad_enabled():
            one = z[: len(z) // self.num_steps]
            shift = shift + self.start_noise * torch.randn_like(one, dtype=shift.dtype)
        return spiking(z, self.threshold, shift, self.num_steps)

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        threshold = self.threshold.detach()
        told = "not there yet" if threshold.is_meta else f"{threshold.item():.4g}"
        return f"levels={self.levels}, threshold={told}"


@contextmanager
def activation_mode(
    model: nn.Module, mode: ActivationMode, num_steps: int = 1, start_noise: float = 0.0
) -> Iterator[None]:
    """Run every quantized activation of `model` in `mode` inside the `with` block."""
    activations = [m for m in model.modules() if isinstance(m, QuantizedActivation)]
    now = {"mode": mode, "num_steps": num_steps, "start_noise": start_noise}
    before = [{name: getattr(a, name) for name in now} for a in activations]
    try:
        for activation in activations:
            vars(activation).update(now)
        yield
    finally:
        for activation, old in zip(activations, before, strict=True):
            vars(activation).update(old)
