"""Layout of a layer's neurons for the kernels, and their distribution over threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import gcd, prod
from typing import Any

import numpy as np

from toolchain.engine.kernels import Kernel
from toolchain.threads import share, slices

ROW = 2048
"""Most neurons per row, if the channels allow it: a row's state stays in the cache."""
WORTH_A_THREAD = 1 << 16
"""Number of neuron steps that are worth a thread."""

Plane = tuple[int, int, int]
Reach = tuple[int, int, int, int]
"""Lowest and highest current, lowest and highest state before firing."""


@dataclass(frozen=True)
class Rows:
    """`count` rows of `width` neurons; a row contains whole sets of channels.

    Attributes
    ----------
    samples:
        Number of samples that fill whole rows.
    """

    count: int
    width: int
    samples: int
    of_samples: int

    @classmethod
    def of_layer(cls, samples: int, plane: Plane, chunk: int) -> Rows:
        """Rows for n samples of a layer of (H, W, C), processed `chunk` or fewer at a time."""
        return _rows(samples, plane[0] * plane[1], plane[2], gcd(samples, chunk))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values (T, n, H, W, C) or (n, H, W, C) as a view (T, rows, width) or (rows, width)."""
        count = prod(values.shape[-4:]) // self.width
        return values.reshape(*values.shape[:-4], count, self.width)

    def between(self, part: slice) -> tuple[int, int]:
        """First row of the samples in `part`, and the row after their last."""
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


def in_threads(kernel: Kernel, where: tuple[int, int], work: int, *arguments: Any) -> Reach:
    """Run `kernel(*arguments, start, stop)` over the rows `where`, see `share`.

    `work` is the number of neuron steps. Returns the extremes over all parts.
    """
    first, end = where
    parts = slices(end - first, work // WORTH_A_THREAD)
    return joined(share(lambda p: kernel(*arguments, first + p.start, first + p.stop), parts))


def joined(reaches: Sequence[Sequence[int]]) -> Reach:
    """Extremes (low, high, low, high) over several parts."""
    low, high, lowest, highest = zip(*reaches, strict=True)
    return int(min(low)), int(max(high)), int(min(lowest)), int(max(highest))
