"""CQReLU: clipped quantized ReLU (Li et al., CASC).

    a = lam * floor(Q * clip(x / lam, 0, 1)) / Q

`lam` is not trained, and nothing is added before the floor. In the paper it is 1 in every layer;
a network that starts from a trained ReLU network has one per layer from its outputs. Where no
branches meet, that is the paper's network with its weights in other units. Backward: hardtanh of
the incoming gradient, in units of lam, where 0 <= x <= lam, zero elsewhere. Spiking counterpart:
CIF with threshold lam, V(0) = 0 and Q wake steps.
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
        """`z` clipped to 0 .. threshold, and rounded down to multiples of threshold / levels."""
        return cqrelu(z, self.levels, self.threshold)
