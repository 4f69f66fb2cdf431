"""How loops are compiled: by numba, for this processor, once; the code is kept for later runs.

Compiling all loops of the simulator takes 10 to 20 seconds, in which nothing else is seen to
happen; so a log line, of level INFO, says when it begins.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numba
from numba.core import event

compiled_with: Any = partial(numba.njit, cache=True, nogil=True)
"""With further options of numba."""
compiled: Any = compiled_with()
parallel: Any = compiled_with(parallel=True)
part_of_another: Any = numba.njit(nogil=True)
"""Compiled, and kept, only as a part of what calls it."""

_log = logging.getLogger(__name__)


class _Notice(event.Listener):
    """Says once that loops of this project are compiled; those that are kept cause no event."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: event.Event) -> None:
        """Called by numba."""
        module = event.data["dispatcher"].py_func.__module__
        if not self._said and module.partition(".")[0] == __package__:
            self._said = True
            _log.info("compiling loops for this processor: once, for up to half a minute")

    def on_end(self, event: event.Event) -> None:
        """Called by numba."""


event.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]
