"""NQ: noisy quantized activation (Huang et al., IEEE TNNLS 2025).

    a = lam * floor(clip(z / lam, 0, 1) * L + 1/2) / L - sigma * eps,   eps ~ N(0, 1)

The noise stands for the residual error of the converted network; it is drawn for each element
in training, after the clip, and is off in evaluation. `sigma` is one scalar per layer, not
trained, re-estimated from the spiking network (see `toolchain.learning.training.noise`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.learning.activations.qcfs import INITIAL_THRESHOLD, QCFS


class NQ(QCFS):
    """QCFS with residual-error noise in training; buffer `sigma` holds its intensity."""

    kind = "nq"
    sigma: Tensor

    def __init__(self, levels: int = 4, threshold: float = INITIAL_THRESHOLD) -> None:
        super().__init__(levels, threshold)
        self.register_buffer("sigma", torch.tensor(0.0))

    def quantized(self, z: Tensor) -> Tensor:
        """QCFS of `z`, in training with noise of standard deviation `sigma`."""
        a = super().quantized(z)
        if self.training:
            a = a - self.sigma.to(a.dtype) * _standard_normal(a)
        return a


def _standard_normal(like: Tensor) -> Tensor:
    """Draw N(0, 1) for each element of `like`.

    Drawn in float32 along memory: torch's generator is several times slower for bf16 and for
    tensors in channels-last order.
    """
    if like.ndim == 4:
        n, c, h, w = like.shape
        drawn = torch.randn(n, h, w, c, device=like.device).permute(0, 3, 1, 2)
    else:
        drawn = torch.randn(like.shape, device=like.device)
    return drawn.to(like.dtype)
