"""CQReLU: clipped quantized ReLU (Li et al., CASC).

    a = floor(Q * clip(x, 0, 1)) / Q

No learned scale and no shift; the threshold is 1 everywhere. Backward: hardtanh of the incoming
gradient where 0 <= x <= 1, zero elsewhere. Spiking counterpart: CIF with threshold 1, V(0) = 0
and Q wake steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.learning.activations.quantized import QuantizedActivation
from toolchain.learning.activations.straight_through import cqrelu


class CQReLU(QuantizedActivation):
    """CQReLU as a module; `levels` is the paper's Q."""

    kind = "cqrelu"
    shift = 0.0

    def __init__(self, levels: int = 8) -> None:
        super().__init__(levels)
        self.register_buffer("threshold", torch.tensor(1.0))

    def quantized(self, z: Tensor) -> Tensor:
        """`floor(levels * clip(z, 0, 1)) / levels`, elementwise."""
        return cqrelu(z, self.levels)
