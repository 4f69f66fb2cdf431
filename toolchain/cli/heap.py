"""Memory settings for short commands: freed memory is reused, and garbage is not collected.

Both save time in commands with large arrays and large libraries.
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
    """Keep freed memory for the next array until the process ends; no effect without glibc.

    By default, arrays above 32 MB get their own pages, which the kernel has to clear: a large part
    of the time in which a network of many weights is converted. Here arrays above 256 MB do, since
    they leave gaps that nothing else fills. All threads share one heap, so that memory freed by one
    is reused by another.
    """
    if os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 2**28)
        mallopt(TRIM_THRESHOLD, LARGEST)
        mallopt(ARENA_MAX, 1)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Import without the garbage collector, which would scan all objects of torch repeatedly.

    This saves a part of the import time of torch and numba. Imported objects stay until the end,
    and are not scanned later either.
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
