"""Strings from untrusted files, made safe for the place where they are shown.

Names come from files that anybody may have written. Each output escapes them:
`visible` for terminals and messages, `drawn` for matplotlib, `markdown` for Markdown; HTML does so
by Jinja2's autoescape.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MARKUP = re.compile(r"""[<>&"'`$\\\[\]{}|;]|:\w+:""")
_MARKDOWN = re.compile(r"[\\`*<>|\[\]]")


def visible(text: object) -> str:
    """One line in which every character is visible.

    Control characters (line ends too), marks that turn the direction of writing, characters
    without a width and halves of surrogate pairs become escapes as Python writes them.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def counted(number: int, unit: str) -> str:
    """A number with its unit: "1 core", "4,096 cores"."""
    return f"{number:,} {unit}" + "s" * (number != 1)


def is_plain(name: str) -> bool:
    """Whether every character is visible, and none is markup in HTML, TeX, terminals or shells."""
    return visible(name) == name and not _MARKUP.search(name)


def drawn(text: object) -> str:
    """Text that matplotlib draws unchanged: a dollar sign begins no formula."""
    return visible(text).replace("$", r"\$")


@contextmanager
def drawing() -> Iterator[None]:
    """Context for drawing by matplotlib: characters that its font lacks become boxes, silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def markdown(text: object) -> str:
    """Text that Markdown shows unchanged: no markup, links, HTML or further table cells."""
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))
