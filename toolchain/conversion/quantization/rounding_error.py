"""Rounding errors of a layer's weights, and whether they fit: compiled loops.

Every candidate has its own sums, computed over the weights in order, so that they are the same
on every processor, whatever the width of its vector registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from toolchain.compiled import compiled, compiled_with
from toolchain.threads import share, slices

HALF_EVEN = 1.5 * 2.0**52
"""Adding and subtracting it rounds a float64 below 2^51 to an integer, ties to even."""
WORTH_A_THREAD = 1 << 22
"""Number of weights (times thresholds tried) from which a second thread saves time."""


@compiled
def _rows_errors(  # type: ignore[no-untyped-def]
    weight, importance, weighting, low, high, clips, thetas, apart, together, start, stop
):
    """Fill `apart` and `together`, (n, C), for the rows `start .. stop`.

    Empty `importance` and `weighting`, (1, 0), mean ones.
    """
    count = thetas.shape[0]
    plain = importance.shape[1] == 0 and not clips
    for c in range(start, stop):
        row, theta = weight[c], thetas[:, c].copy()
        of_row = c if importance.shape[0] > 1 else 0
        important, weighted = importance[of_row], weighting[of_row]
        squares, sums = np.zeros(count), np.zeros(count)
        for i in range(row.shape[0] if plain else 0):
            w = row[i]
            for n in range(count):
                scaled = w * theta[n]
                error = ((scaled + HALF_EVEN) - HALF_EVEN) - scaled
                squares[n] += error * error
                sums[n] += error
        for i in range(0 if plain else row.shape[0]):
            w, m, q = row[i], important[i], weighted[i]
            for n in range(count):
                scaled = w * theta[n]
                rounded = (scaled + HALF_EVEN) - HALF_EVEN
                if clips:
                    rounded = min(max(rounded, low[i]), high[i])
                error = rounded - scaled
                squares[n] += error * error * m
                sums[n] += error * q
        for n in range(count):  # not a slice: its check alone would take long to compile
            apart[n, c], together[n, c] = squares[n], sums[n]


@compiled_with(error_model="numpy", fastmath={"nnan", "nsz"})
def _rows_reach(weight, low, high, reach, start, stop):  # type: ignore[no-untyped-def]
    """Fill `reach`, (C,), for the rows `start .. stop`, with no branch except the minimum."""
    for c in range(start, stop):
        row, nearest = weight[c], np.inf
        for i in range(row.shape[0]):
            bound = high[i] if row[i] > 0 else -low[i]
            nearest = min(nearest, bound / abs(row[i]))
        reach[c] = nearest


@compiled_with(fastmath={"nnan", "nsz"})
def _rows_peaks(weight, lowest, highest, start, stop):  # type: ignore[no-untyped-def]
    """Fill `lowest` and `highest`, (C,), for the rows `start .. stop`."""
    for c in range(start, stop):
        row, low, high = weight[c], 0.0, 0.0
        for i in range(row.shape[0]):
            low, high = min(low, row[i]), max(high, row[i])
        lowest[c], highest[c] = low, high


@compiled
def _rows_outside(weight, thetas, low, high, count, start, stop):  # type: ignore[no-untyped-def]
    """Fill `count`, (C,), for the rows `start .. stop`."""
    for c in range(start, stop):
        row = weight[c]
        found = 0
        for i in range(row.shape[0]):
            rounded = (row[i] * thetas[c] + HALF_EVEN) - HALF_EVEN
            found += (rounded < low[i]) | (rounded > high[i])
        count[c] = found


def row_reach(weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The factor at which a row's first weight leaves its range, (C,); inf for rows of zeros.

    `weight` is float64 (C, K); `low` < 0 and `high` > 0, (K,), bound a weight times the factor.
    """
    reach = np.empty(len(weight))
    _in_threads(partial(_rows_reach, weight, low, high, reach), *weight.shape)
    return reach


def row_peaks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of each row of float64 (C, K), 0 included: (C,) each."""
    lowest, highest = np.empty(len(weight)), np.empty(len(weight))
    _in_threads(partial(_rows_peaks, weight, lowest, highest), *weight.shape)
    return lowest, highest


def outside(
    weight: np.ndarray, thetas: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Number of weights per row that, times theta and rounded, are outside: int64 (C,).

    `weight` is float64 (C, K), `thetas` (C,); `low` and `high`, (K,), bound the integers.
    """
    count = np.empty(len(weight), np.int64)
    _in_threads(partial(_rows_outside, weight, thetas, low, high, count), *weight.shape)
    return count


def rounding_errors(
    weight: np.ndarray,
    importance: np.ndarray,
    weighting: np.ndarray,
    thetas: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of rounding errors `d = round(theta w) - theta w`, per threshold and channel, in units.

    Parameters
    ----------
    weight:
        float64 (C, K).
    importance, weighting:
        float64 (C, K), or (1, K) if they are the same for all channels.
    thetas:
        float64 (n, C); `theta w` stays below 2^51.
    bounds:
        Lowest and highest integers, float64 (K,) each, to which rounded values are clipped.

    Returns
    -------
    `sum importance d^2` and `sum weighting d`, float64 (n, C) each.
    """
    channels, inputs = weight.shape
    apart, together = np.empty_like(thetas), np.empty_like(thetas)
    nothing = np.zeros(inputs)
    low, high = bounds if bounds is not None else (nothing, nothing)
    clips = bounds is not None
    if not clips and (importance == 1).all() and (weighting == 1).all():
        importance = weighting = np.empty((1, 0))
    run = partial(_rows_errors, weight, importance, weighting, low, high, clips, thetas)
    _in_threads(partial(run, apart, together), channels, inputs * len(thetas))
    return apart, together


def _in_threads(run: Callable[[int, int], None], channels: int, work: int) -> None:
    """Run `run(start, stop)` over all channels, of `work` each, in threads if that saves time."""
    most = channels if channels * work >= WORTH_A_THREAD else 1
    share(lambda part: run(part.start, part.stop), slices(channels, most))
