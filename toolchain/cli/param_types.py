"""Types of options that are text: lists of numbers, sizes; and the paths that commands read."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any

import typer

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
LARGE_EXPONENT = re.compile(r"[eE][+-]?\d{4}")
"""Numbers beyond the range of floats, whose exact value would take hours to compute."""


def typed(
    option: str, read: Callable[[str, str], Any], *, metavar: str = "<str>", **more: Any
) -> Any:
    """An option whose value is what `read` makes of the option's name and its text."""

    def parser(text: str) -> Any:
        return read(option, text)

    return typer.Option(option, parser=parser, metavar=metavar, **more)


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers in `text`, each once, in order.

    Raises
    ------
    DataError
        If an item is no whole number of at least 1, or is larger than any schedule allows.
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
        If an item is no finite number.
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
    """The numbers in `text` as in `real_numbers`, all positive, such as a std per channel."""
    from toolchain.errors import DataError

    values = real_numbers(option, text)
    if not min(values) > 0:
        raise DataError("every number must be positive", node=option, found=text[:80])
    return values


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers in `text`, such as a shape; DataError if an item is none."""
    from toolchain.errors import DataError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise DataError("not numbers separated by commas", node=option, found=text[:80]) from error


def number_or_file(option: str, text: str) -> int | Path:
    """A whole number, or the path of a file; DataError if it is neither."""
    from toolchain.errors import DataError

    if text.isdecimal():
        return int(text)
    if not Path(text).is_file():
        raise DataError("neither a whole number nor a file", node=option, found=text[:80])
    return Path(text)


def interval(option: str, text: str) -> tuple[float, float]:
    """The interval LOW,HIGH; DataError if LOW is not below HIGH."""
    from toolchain.errors import DataError

    values = real_numbers(option, text)
    if len(values) != 2 or not values[0] < values[1]:
        raise DataError("needs LOW,HIGH with LOW < HIGH", node=option, found=text)
    return (values[0], values[1])


def names(option: str, text: str) -> tuple[str, ...]:
    """The names in `text`, separated by commas; none for "none"."""
    return tuple(n.strip() for n in text.split(",") if n.strip() not in ("", "none"))


def parse_size(option: str, text: str) -> int:
    """Number of bytes of `2GB`, `512MiB`, `1.5g` or a plain number.

    Raises
    ------
    typer.BadParameter
        If the text has another form, or is not positive.
    """
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmg]i?)?b?", text.strip().lower())
    size = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise typer.BadParameter(
            f"'{text}' is not a size: like 2GB, 512MiB or a number of bytes", param_hint=option
        )
    return size


def parse_pixels(option: str, text: str) -> tuple[int, int]:
    """(height, width) of `WIDTHxHEIGHT`, or of one number for both.

    Raises
    ------
    typer.BadParameter
        If the text has another form.
    """
    found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip().lower())
    sides = (int(found[2] or found[1]), int(found[1])) if found else (0, 0)
    if min(sides) < 1:
        raise typer.BadParameter(
            f"'{text}' is not a size in pixels: like 320x240 (width x height)", param_hint=option
        )
    return sides


def data_path(source: str | None) -> Path | None:
    """The file or folder of a data source; None if it has none.

    Raises
    ------
    DataError
        If the text is no data source.
    """
    from toolchain.learning.data import parse_source

    return None if source is None else parse_source(source).path


def network_path(source: str | None) -> Path | None:
    """The file or folder of CHECKPOINT, FILE.py:FACTORY or FILE.onnx; None for model:NAME."""
    if source is None:
        return None
    file, separator, _ = source.rpartition(":")
    return Path(file if separator and file.endswith(".py") else source)
