"""Offline HTML pages from the Jinja2 templates of this folder, with one style sheet.

Templates escape all values, and every character of a value is visible.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from toolchain.text import visible


def render(template: str, **values: Any) -> str:
    """The page of `template`, a file name, with these values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"default": str}
    return environment.get_template(template).render(**values)
