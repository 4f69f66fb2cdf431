"""Lists of numbers on the command line."""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite

LARGE_EXPONENT = re.compile(r"[eE][+-]?\d{4}")
"""Of numbers beyond all floats; to work them out exactly would take hours."""


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers in `text`, each once, in its order.

    Raises
    ------
    DataError
        If one is no whole number of at least 1, or more than any schedule has.
    """
    from toolchain.errors import DataError
    from toolchain.program.int_program import MOST_STEPS

    try:
        values = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise DataError("not whole numbers with commas", node=option, found=text) from error
    if min(values) < 1:
        raise DataError("every number must be at least 1", node=option, found=text)
    if max(values) > MOST_STEPS:
        raise DataError(
            "a number is too large",
            node=option,
            found=max(values),
            allowed=f"up to {MOST_STEPS}: a rate over these steps has 16 bits",
        )
    return values


def real_numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers in `text`, such as a mean per channel; each may be a fraction: 128/255.

    Raises
    ------
    DataError
        If one is no finite number.
    """
    from toolchain.errors import DataError

    try:
        if LARGE_EXPONENT.search(text):
            raise OverflowError
        values = tuple(float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise DataError(
            "not numbers or fractions with commas", node=option, found=text[:80]
        ) from error
    if not all(map(isfinite, values)):
        raise DataError("every number must be finite", node=option, found=text[:80])
    return values


def divisors(option: str, text: str) -> tuple[float, ...]:
    """As `real_numbers`, all positive, such as a standard deviation per channel."""
    from toolchain.errors import DataError

    values = real_numbers(option, text)
    if not min(values) > 0:
        raise DataError("every number must be positive", node=option, found=text[:80])
    return values
