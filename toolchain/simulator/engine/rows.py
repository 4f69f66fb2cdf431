"""How a layer's neurons are laid out for the kernels, and shared out among threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
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
    """`count` rows of `width` neurons; a row holds whole sets of channels."""

    count: int
    width: int

    @classmethod
    def of_layer(cls, samples: int, plane: Plane) -> Rows:
        """Rows for n samples of a layer of (H, W, C)."""
        return _rows(samples * plane[0] * plane[1], plane[2])

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values (T, n, H, W, C) or (n, H, W, C) as a view (T, rows, width) or (rows, width)."""
        return values.reshape(*values.shape[:-4], self.count, self.width)


@cache
def _rows(sites: int, channels: int) -> Rows:
    most = max(1, ROW // channels)
    together = next(d for d in range(most, 0, -1) if sites % d == 0)
    return Rows(sites // together, together * channels)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikeport-neurons")


def in_threads(kernel: Callable[..., Any], count: int, work: int, *arguments: Any) -> Any:
    """`kernel(*arguments, start, stop)` over `count` items, in as many threads as torch uses.

    `work` is the number of neuron steps. A kernel that returns extremes (low, high, low, high)
    has them joined.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < 2 or work < WORTH_A_THREAD:
        return kernel(*arguments, 0, count)
    edges = [count * i // threads for i in range(threads + 1)]
    found = list(
        _pool(threads).map(lambda i: kernel(*arguments, edges[i], edges[i + 1]), range(threads))
    )
    if found[0] is None:
        return None
    columns = list(zip(*found, strict=True))
    return tuple((min, max)[i % 2](column) for i, column in enumerate(columns))
