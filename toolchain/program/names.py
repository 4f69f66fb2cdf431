"""Names of nodes and populations, where users' names and ours share a program."""

from __future__ import annotations


def new_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with the number of its use behind it where it is taken; taken from then on."""
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}#{count}", count + 1
    taken.add(name)
    return name
