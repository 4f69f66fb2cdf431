"""Large arrays reuse memory that others gave back, instead of fresh pages for each of them."""

from __future__ import annotations

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3), from malloc.h."""
LARGEST = 2**31 - 1


def keep_heap() -> None:
    """Keep freed memory for the next array until the process ends; nothing without glibc.

    By default arrays above 32 MB get pages of their own, which the kernel has to clear: a third of
    the time in which a network of many weights is converted.
    """
    if os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 2**30)
        mallopt(TRIM_THRESHOLD, LARGEST)
