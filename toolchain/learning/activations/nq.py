"""NQ: noisy quantized activation (Huang et al., IEEE TNNLS 2025).

    a = lam * floor(clip(z / lam, 0, 1) * L + 1/2) / L - sigma * eps,   eps ~ N(0, 1)

The noise stands for the residual error of the converted network; it is drawn for each element
in training, after the clip, and is off in evaluation. `sigma` is one scalar per layer, not
trained, re-estimated from the spiking network (see `toolchain.learning.training.noise`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from toolchain.learning.activations.fused import FUSE_FROM
from toolchain.learning.activations.qcfs import INITIAL_THRESHOLD, QCFS
from toolchain.learning.activations.straight_through import qcfs

POOL = 1 << 24
"""Values drawn once, 64 MB in float32, from which the noise of large layers is taken."""
SLICE = 1 << 22
"""Most values taken from the pool in one piece: a quarter of it, so that starts differ."""


class NQ(QCFS):
    """QCFS with residual-error noise in training; buffer `sigma` holds its intensity."""

    kind = "nq"
    sigma: Tensor

    def __init__(self, levels: int = 4, threshold: float = INITIAL_THRESHOLD) -> None:
        super().__init__(levels, threshold)
        self.register_buffer("sigma", torch.tensor(0.0))

    def quantized(self, z: Tensor) -> Tensor:
        """QCFS of `z`, in training with noise of standard deviation `sigma`."""
        if not self.training:
            return super().quantized(z)
        return qcfs(z, self.threshold, self.levels, self.sigma, _standard_normal(z))


def _standard_normal(like: Tensor) -> Tensor:
    """N(0, 1) for each element of `like`, in its precision; chosen by torch's global generator.

    On a processor, drawing takes as long as all convolutions of a ResNet20 in bf16. A large layer
    therefore gets slices of a pool that is drawn once, each from a random start. Elements of one
    slice are independent; two slices may hold the same values, at a random distance.
    """
    # torch's generator is several times slower for tensors in channels-last order.
    if like.device.type != "cpu" or like.numel() < FUSE_FROM:
        values = torch.randn(like.numel(), device=like.device).to(like.dtype)
    else:
        starts = torch.randint(POOL - SLICE, (-(-like.numel() // SLICE),)).tolist()
        pool = _pool(like.dtype)
        slices = [pool[start : start + SLICE] for start in starts]
        values = (slices[0] if len(slices) == 1 else torch.cat(slices))[: like.numel()]
    if like.ndim != 4:
        return values.reshape(like.shape)
    n, c, h, w = like.shape
    return values.reshape(n, h, w, c).permute(0, 3, 1, 2)


@cache
def _pool(dtype: torch.dtype) -> Tensor:
    """`POOL` values of N(0, 1), the same in every process."""
    return torch.randn(POOL, generator=torch.Generator().manual_seed(0)).to(dtype)
