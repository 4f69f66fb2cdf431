"""Messages in the words of the command line.

The library names arguments as Python has them: `relu_percentile=99.9`, `neuron="if"`. A user of the
command line reads options instead: `--relu-percentile 99.9`, `--neuron if`. The parameters of the
commands have the names of the library's arguments, so that they say which option is which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

_ARGUMENT = re.compile(
    r"""(?<![\w/.-])([a-z_]+)=
    ("[^"]*" | \([^)]*\) | [A-Z][\w.:]*\b | \d+(?:[./]\d+)?(?![\w/]|\.\w) | (?=[\s,;:)]|$))""",
    re.VERBOSE,
)


def as_options(value: Any) -> Any:
    """Text, or JSON values with text, in which options stand for arguments of the library."""
    if isinstance(value, dict):
        return {key: as_options(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_options(item) for item in value]
    return _ARGUMENT.sub(_as_option, value) if isinstance(value, str) else value


def _as_option(argument: re.Match[str]) -> str:
    name, value = argument.groups()
    if name not in options_by_argument():
        return argument[0]
    if value.startswith("("):
        value = value[1:-1].replace(" ", "")
    value = "" if value == "True" else value.strip('"')
    return f"{options_by_argument()[name]} {value}".rstrip()


@cache
def options_by_argument() -> dict[str, str]:
    """The option of each argument, over all commands."""
    from toolchain.cli.app import app

    return dict(_options(typer.main.get_command(app)))


def _options(command: Any) -> Iterator[tuple[str, str]]:
    for sub in getattr(command, "commands", {}).values():
        yield from _options(sub)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield parameter.name, max(parameter.opts, key=len)
