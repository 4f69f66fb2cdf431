"""Learning rate over a run, as a function of the part of it that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.3
START_DIVISOR, END_DIVISOR = 25.0, 1e4
"""OneCycle: share of the run spent rising, and how far below the peak it starts, and ends below
its start (Smith & Topin, 2018; the defaults of torch.optim.lr_scheduler.OneCycleLR)."""


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def cosine(peak: float, done: float) -> float:
    """From `peak` to 0 along half a cosine (Loshchilov & Hutter, 2017), without restarts."""
    return _cosine(peak, 0.0, done)


def one_cycle(peak: float, done: float) -> float:
    """Up to `peak` and down again, both along half a cosine."""
    start = peak / START_DIVISOR
    if done < WARM_UP:
        return _cosine(start, peak, done / WARM_UP)
    return _cosine(peak, start / END_DIVISOR, (done - WARM_UP) / (1 - WARM_UP))


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": cosine,
    "onecycle": one_cycle,
}
"""Take the peak and the part done, in [0, 1]."""
