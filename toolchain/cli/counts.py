"""Lists of whole numbers on the command line."""

from __future__ import annotations


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
