"""Unique names of nodes and populations, for names made beside those of users."""

from __future__ import annotations


def new_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, with a number appended if it is already in `taken`; adds the result to `taken`."""
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}#{count}", count + 1
    taken.add(name)
    return name
