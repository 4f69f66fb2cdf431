"""Parts of Markdown that several sections of the page are made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toolchain.text import markdown


def table_line(cells: Sequence[object]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(markdown, cells)) + " |"


def image(alternative: str, path: Path, page: Path) -> str:
    """Markdown of an image that stands somewhere beside the page."""
    link = quote(os.fsencode(Path(os.path.relpath(path, page.parent)).as_posix()))
    return f"![{markdown(alternative)}]({link})"


def ran(made: Mapping[str, Any]) -> str:
    """How long, on what, with which versions."""
    beside = ("command", "seconds", "processor", "cores")
    versions = ", ".join(f"{k} {v}" for k, v in made.items() if k not in beside)
    return markdown(
        f"{made['seconds']:.0f} s on {made['processor']}, {made['cores']} cores; {versions}."
    )
