"""How a layer's neurons are laid out for the kernels, and shared out among threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import gcd, prod
from typing import Any

import numpy as np
import torch

ROW = 2048
"""Neurons a row holds, at most, where the channels allow: a row's state stays in the cache."""
WORTH_A_THREAD = 1 << 18
"""Neuron steps from which a second thread pays."""

Plane = tuple[int, int, int]


@dataclass(frozen=True)
class Rows:
    """`count` rows of `width` neurons; a row holds whole sets of channels.

    Attributes
    ----------
    samples:
        So many samples fill whole rows.
    """

    count: int
    width: int
    samples: int
    of_samples: int

    @classmethod
    def of_layer(cls, samples: int, plane: Plane, chunk: int) -> Rows:
        """Rows for n samples of a layer of (H, W, C), of which `chunk` or a rest go at a time."""
        return _rows(samples, plane[0] * plane[1], plane[2], gcd(samples, chunk))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values (T, n, H, W, C) or (n, H, W, C) as a view (T, rows, width) or (rows, width)."""
        count = prod(values.shape[-4:]) // self.width
        return values.reshape(*values.shape[:-4], count, self.width)

    def between(self, part: slice) -> tuple[int, int]:
        """The rows of the samples in `part`."""
        return (
            part.start * self.of_samples // self.samples,
            part.stop * self.of_samples // self.samples,
        )


@cache
def _rows(samples: int, sites: int, channels: int, part: int) -> Rows:
    most = max(1, ROW // channels)
    together = next(d for d in range(most, 0, -1) if part * sites % d == 0)
    count = samples * sites // together
    return Rows(count, together * channels, part, part * sites // together)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikeport-neurons")


def in_threads(
    kernel: Callable[..., Any], where: tuple[int, int], work: int, *arguments: Any
) -> Any:
    """`kernel(*arguments, start, stop)` over the rows `where`, in as many threads as torch uses.

    `work` is the number of neuron steps. A kernel that returns extremes (low, high, low, high)
    has them joined.
    """
    first, end = where
    threads = min(torch.get_num_threads(), end - first)
    if threads < 2 or work < WORTH_A_THREAD:
        return kernel(*arguments, first, end)
    edges = [first + (end - first) * i // threads for i in range(threads + 1)]
    found = list(
        _pool(threads).map(lambda i: kernel(*arguments, edges[i], edges[i + 1]), range(threads))
    )
    return None if found[0] is None else joined(found)


def joined(reaches: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Extremes (low, high, low, high) of several parts as those of all."""
    columns = list(zip(*reaches, strict=True))
    return tuple((min, max)[i % 2](column) for i, column in enumerate(columns))
