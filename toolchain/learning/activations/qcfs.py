"""QCFS: quantization clip-floor-shift (Bu et al., ICLR 2022).

    a = lam * clip(floor(z / lam * L + 1/2) / L, 0, 1)

`lam` is one trainable scalar per layer. Gradients with the floor passed straight through, inside
0 < z < lam: da/dz = 1, da/dlam = a/lam - z/lam; above: 0 and 1; below: 0 and 0.
Spiking counterpart: IF, reset by subtraction, threshold lam, v(0) = lam / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolchain.learning.activations.quantized import QuantizedActivation
from toolchain.learning.activations.straight_through import qcfs

INITIAL_THRESHOLD = 8.0
"""Start value of `lam` in the official code of QCFS and NQ."""


class QCFS(QuantizedActivation):
    """QCFS as a module with its own trainable threshold."""

    kind = "qcfs"
    shift = 0.5

    def __init__(self, levels: int = 4, threshold: float = INITIAL_THRESHOLD) -> None:
        super().__init__(levels)
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def quantized(self, z: Tensor) -> Tensor:
        """`z` clipped to 0 .. threshold, and rounded to multiples of threshold / levels."""
        return qcfs(z, self.threshold, self.levels)
