"""Memory of a command that ends soon: kept for the next array, and not searched for garbage.

Both are for commands whose time is that of large arrays and large libraries.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3), from malloc.h."""
LARGEST = 2**31 - 1


def keep_heap() -> None:
    """Keep freed memory for the next array until the process ends; nothing without glibc.

    By default arrays above 32 MB get pages of their own, which the kernel has to clear: a third of
    the time in which a network of many weights is converted. All threads share one heap, so that
    what one has freed serves another.
    """
    if os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 2**30)
        mallopt(TRIM_THRESHOLD, LARGEST)
        mallopt(ARENA_MAX, 1)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Import without the garbage collector, which looks at all that torch makes again and again.

    A sixth of the time that torch and numba take to import. What was imported stays until the end,
    and is not looked at later either.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        if before:
            gc.enable()
