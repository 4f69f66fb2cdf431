"""What workers do with each part of the samples, and under which versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

from toolchain import __version__
from toolchain.errors import BackendRunError
from toolchain.progress import Progress

PACKAGES = ("torch", "numpy")
"""Packages whose versions are part of a recording."""


@cache
def versions() -> dict[str, str]:
    """The versions of this process that must be those of every worker."""
    return {"spikeport": __version__, **{name: version(name) for name in PACKAGES}}


@dataclass(frozen=True)
class Work:
    """A function of a module, called as `function(shared, part, progress)` in any process.

    Attributes
    ----------
    shared:
        What it needs besides the part.
    versions:
        Those of the process that wants the results.
    """

    function: Callable[[Any, Any, Progress | None], Any]
    shared: Any
    versions: dict[str, str] = field(default_factory=versions)

    def __call__(self, part: Any, progress: Progress | None = None) -> Any:
        """The result of one part.

        Raises
        ------
        BackendRunError
            If this process has other versions.
        """
        if versions() != self.versions:
            raise BackendRunError(
                "a worker has other versions than this process",
                found=_told(versions()),
                allowed=_told(self.versions),
                remedy="install these on every worker",
            )
        return self.function(self.shared, part, progress)


def _told(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())
