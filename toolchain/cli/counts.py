"""Lists of numbers on the command line."""

from __future__ import annotations

import re
from fractions import Fraction

NUMBER = re.compile(r"[^eE]*([eE][+-]?\d{1,3})?")
"""Larger exponents take minutes to be worked out exactly."""


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers in `text`, each once, in its order.

    Raises
    ------
    DataError
        If one is no whole number of at least 1.
    """
    from toolchain.errors import DataError

    try:
        values = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise DataError("not whole numbers with commas", node=option, found=text) from error
    if min(values) < 1:
        raise DataError("every number must be at least 1", node=option, found=text)
    return values


def real_numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers in `text`, in its order; 128/255 is one.

    Raises
    ------
    DataError
        If one is no finite number.
    """
    from toolchain.errors import DataError

    try:
        parts = text.split(",")
        if not all(NUMBER.fullmatch(part) for part in parts):
            raise OverflowError
        return tuple(float(Fraction(part.strip())) for part in parts)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise DataError(
            "not numbers separated by commas", node=option, found=text, allowed="0.5 or 128/255"
        ) from error
