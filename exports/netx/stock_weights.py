"""Dense weights after the stock loader; source: lava-dl 0.6.0 and lava-nc 0.10.0."""

from __future__ import annotations

from math import floor, log2

import numpy as np

MIXED_LIMITS = (-256, 254)
"""Range outside which mixed weights are clipped with a print only (lava-dl,
`optimize_weight_bits`)."""
SYNAPSE_BITS = 8
"""Bits of Lava's Dense, which clips to them and drops lower bits (lava-nc, `weightutils`)."""


def loaded_by_stock(weight: np.ndarray) -> np.ndarray | None:
    """The weights that lava-dl's loader runs for integers `weight`, (F_out, F_in).

    None if the loader fails (all weights 0), or if it runs weights that are no integers.

    Its `optimize_weight_bits` scales by a power of two towards 8 bits and passes the inverse to
    Lava's Dense, which determines the signs again, clips, and drops low bits.
    """
    low, high = int(weight.min()), int(weight.max())
    if low == high == 0:
        return None
    if (high > MIXED_LIMITS[1] and low < 0) or (low < MIXED_LIMITS[0] and high > 0):
        weight = np.clip(weight, *MIXED_LIMITS)
        low, high = int(weight.min()), int(weight.max())
    mixed = low < 0 <= high
    if mixed:
        scale = min(127 / high if high else np.inf, -128 / low)
    else:
        scale = -256 / low if high < 0 else 255 / high
    shift = floor(log2(scale)) + mixed
    if shift < 0:
        # The shift count is negative: NumPy returns 0 for every weight.
        return np.zeros_like(weight)
    zeros = next((n for n in range(8, 0, -1) if not (weight % (1 << n)).any()), 0) - mixed
    scaled = weight.astype(np.int64) << shift
    low, high = int(scaled.min()), int(scaled.max())
    sign = -1 if low < 0 and high <= 0 else 1
    both = low < 0 < high
    scaled = np.clip(sign * scaled, -(1 << SYNAPSE_BITS) * both, (1 << SYNAPSE_BITS) - 1)
    cut = shift + zeros + both
    scaled = sign * (scaled >> cut << cut) if cut >= 0 else np.zeros_like(scaled)
    if (scaled % (1 << shift)).any():
        return None
    return scaled >> shift
