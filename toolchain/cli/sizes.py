"""Sizes of memory and of images as they are typed."""

from __future__ import annotations

import re

import typer

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_size(text: str) -> int:
    """Bytes of `2GB`, `512MiB`, `1.5g` or a plain number.

    Raises
    ------
    typer.BadParameter
        If it is none of these, or not positive.
    """
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmg]i?)?b?", text.strip().lower())
    size = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise typer.BadParameter(f"'{text}' is not a size: like 2GB, 512MiB or a number of bytes")
    return size


def parse_pixels(option: str, text: str) -> tuple[int, int]:
    """(height, width) of `WIDTHxHEIGHT`, or of one number for both.

    Raises
    ------
    typer.BadParameter
        If it is neither.
    """
    found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip().lower())
    sides = (int(found[2] or found[1]), int(found[1])) if found else (0, 0)
    if min(sides) < 1:
        raise typer.BadParameter(
            f"'{text}' is not a size in pixels: like 320x240 (width x height)", param_hint=option
        )
    return sides
