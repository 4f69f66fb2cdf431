"""Lava's axis order: (W, H, C) for (C, H, W) of programs; vectors stay unchanged."""

from __future__ import annotations


def lava_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, H, W) as Lava's (W, H, C)."""
    return tuple(reversed(shape))
