"""Lava's axis order: (W, H, C) where programs have (C, H, W); vectors stay."""

from __future__ import annotations


def lava_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) as Lava's (W, H, C)."""
    return tuple(reversed(shape))
