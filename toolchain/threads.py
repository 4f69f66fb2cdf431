"""Threads that share work: Python's, in each of which torch works alone.

NumPy, compiled loops and torch's operations release Python's lock. In the engine a thread takes
some samples through a whole layer. If torch shared each operation among threads of its own instead,
these would spin until the next operation, and so take a processor from the loops in between: with
two threads the engine was no faster than with one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def allowed_threads() -> int:
    """Number of threads that torch may use here; 1 inside `share`."""
    return torch.get_num_threads()


def share(
    work: Callable[[Part], Result], parts: Sequence[Part], *, torch_works: bool = False
) -> list[Result]:
    """The results of `work` on each part, in order, in as many threads as torch may use.

    A single part is worked on here, unless `torch_works`, which would start torch's own threads.
    """
    threads = allowed_threads()
    if threads < 2 or (len(parts) < 2 and not torch_works):
        return [work(part) for part in parts]
    return list(_pool(os.getpid(), threads).map(work, parts))


def slices(count: int, most: int) -> list[slice]:
    """`count` things in consecutive slices of about equal size, at most `most` and one a thread."""
    number = max(1, min(allowed_threads(), most, count))
    return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the process that it was forked from are not here."""
    del process
    pool, started = ThreadPoolExecutor(threads), Barrier(threads)

    def settle(_: int) -> None:
        torch.get_num_threads()  # a thread's first call sets what all threads begin with
        torch.set_num_threads(1)
        started.wait()  # so that each thread takes one of these calls

    list(pool.map(settle, range(threads)))
    torch.set_num_threads(threads)  # what threads begin with that others start
    return pool
