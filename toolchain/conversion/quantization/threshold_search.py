"""Search of each channel's integer threshold with the smallest rounding error.

For an output channel whose float weights are `w_i` thresholds per unit of spike, an integer
threshold `theta` stands for

    W_i = round(theta * w_i / 2^e),  b_int = round(theta * b)

with the errors `d_i = 2^e * W_i / theta - w_i` and `d_b = b_int / theta - b`. The cost is the
expected squared error of the current of one step, in thresholds:

    J(theta) = (1 - r) sum_i m_i d_i^2 + (sqrt(r) sum_i sqrt(k_i m_i) d_i + d_b)^2

with `m_i = E[s_i^2]` the second moment of the spike, 1 unless it was measured, and r the
correlation `E[s_i s_j] / sqrt(m_i m_j)` between two inputs, not measured here: spikes are not
negative, so errors of one sign add up. For r = 0 it is the sum of the squared errors. A graded
spike that a sum pool made of k spikes counts as those k with one weight, `m = k` times theirs;
`k_i` is 1 otherwise. So a pool that is folded into the weights and one that is a stage of its own
get the same thresholds. Correlations of single inputs are left to error-compensating
rounding (`rounding`).

The largest theta that fits is rarely the best: theta decides where every weight lies on the grid,
and a slightly smaller one may bring most of them closer to it. The search tries thetas between half
the largest and the largest one whose *rounded* weights fit, so that its error is never above that
of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property

import numpy as np

from toolchain.conversion.quantization.distinct_columns import distinct_columns
from toolchain.conversion.quantization.rounding_error import (
    outside,
    rounding_errors,
    row_peaks,
    row_reach,
)
from toolchain.conversion.quantization.row_blocks import Rows, row_blocks
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits

ROUNDING = 2.0**-40
"""Relative slack for float64 rounding, so that a network that is exact in integers stays exact.

It is far below the half unit that rounding a weight allows.
"""
CANDIDATES = 96
"""Thetas tried per channel, evenly spaced, and then as many between the neighbours of the best."""
CORRELATION = 0.1
"""Correlation r of independent spikes that fire in one step of ten.

On small networks at 2 to 8 bits, 0.05 to 0.4 gave counts and logits closer to the float network
than 0, with little difference among them.
"""
CLIPPING_REACH = 4.0
"""With clipping allowed, the largest theta tried, relative to the largest that fits.

Each doubling costs the largest weights one bit and gives it to the others.
"""
EQUAL_ERROR_TOL = 1e-12
"""Largest relative difference of two errors that differ by the order of addition only."""


@dataclass(frozen=True, eq=False)
class ErrorTerm:
    """The float weights of one synapse of a population.

    Attributes
    ----------
    weight:
        float64, (C, K), in thresholds per unit of spike.
    weight_exponent:
        The integer current is `2^weight_exponent * W s`.
    held:
        Range of an integer weight.
    moment:
        `E[s^2]`, float64, (K,) or (C, K); None means 1 everywhere.
    taps:
        k in the module's docstring.
    counts:
        (K,), multiplicity of each column; None for one.
    """

    weight: Rows
    held: IntRange
    weight_exponent: int = 0
    moment: np.ndarray | None = None
    taps: int = 1
    counts: np.ndarray | None = None

    def of_rows(self, part: slice) -> ErrorTerm:
        """The term of the channels in `part`, their weights as an array."""
        moment = self.moment
        if moment is not None and moment.ndim > 1:
            moment = moment[part]
        return replace(self, weight=self.weight[part], moment=moment)

    def without_repeats(self) -> ErrorTerm:
        """The term with equal columns merged: J is the same except for the order of addition.

        With measured moments, which differ per column, it is the term itself.
        """
        moment = self.moment
        if moment is not None and (moment.ndim > 1 or (moment != moment[:1]).any()):
            return self
        found = distinct_columns(self.weight)
        if found is None:
            return self
        first, counts = found
        few = np.concatenate([self.weight[p][:, first] for p in row_blocks(*self.weight.shape)])
        return replace(
            self, weight=few, moment=None if moment is None else moment[first], counts=counts
        )


@dataclass(frozen=True, eq=False)
class ThresholdChoice:
    """One integer threshold per channel.

    Attributes
    ----------
    threshold, largest:
        int64, (C,): the choice, and the largest theta for which all values fit.
    error, largest_error:
        float64, (C,): J of both.
    clipped:
        int64, (C,): number of weights outside their range; 0 unless clipping is allowed.
    """

    threshold: np.ndarray
    largest: np.ndarray
    error: np.ndarray
    largest_error: np.ndarray
    clipped: np.ndarray


@dataclass(frozen=True, eq=False)
class _Rows:
    """All terms of a population side by side, weights in units of their exponent.

    `importance` and `weighting`, (C, K) or (1, K), are m and sqrt(k m) of the module's docstring;
    `low` and `high`, (K,), bound the integers; `clips` states whether a theta may leave rounded
    weights outside their range.
    """

    weight: np.ndarray
    importance: np.ndarray
    weighting: np.ndarray
    bias: np.ndarray
    low: np.ndarray
    high: np.ndarray
    correlation: float
    clips: bool

    @cached_property
    def peaks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Lowest and highest weight per channel, 0 included, (C,) each, if all bounds are equal.

        These two reach equal bounds before any other weight does.
        """
        if np.ptp(self.low) or np.ptp(self.high):
            return None
        return row_peaks(self.weight)

    def reach(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Compute `row_reach` with bounds (K,), all equal where the rows' own are."""
        if self.peaks is None:
            return row_reach(self.weight, low, high)
        with np.errstate(divide="ignore"):
            return np.minimum(-low[0] / np.abs(self.peaks[0]), high[0] / self.peaks[1])

    def leave(self, theta: np.ndarray) -> np.ndarray:
        """Whether any rounded weight of a channel lies outside its bounds: bool (C,)."""
        if self.peaks is None:
            return _outside(self, theta) > 0
        low, high = (np.rint(peak * theta) for peak in self.peaks)
        return np.asarray((low < self.low[0]) | (high > self.high[0]))


def search_thresholds(
    name: str,
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    *,
    limits: TargetLimits,
    ceiling: np.ndarray | None = None,
    allow_clipping: bool = False,
    correlation: float = CORRELATION,
    candidates: int = CANDIDATES,
) -> ThresholdChoice:
    """The integer threshold of each output channel with the smallest rounding error.

    Parameters
    ----------
    name:
        Name of the layer, for error messages.
    terms:
        One per synapse.
    bias:
        float64, (C,), in thresholds.
    ceiling:
        (C,), an upper limit per channel besides the target's, to leave room in the state.
    allow_clipping:
        Also try thetas for which the largest weights leave their range and are clipped; J includes
        the clipping error. The result contains the counts.
    correlation:
        r of the module's docstring, in [0, 1].
    candidates:
        Number of thetas tried in each of the two passes.

    Raises
    ------
    ConversionError
        If no integer threshold fits: a spike is worth more thresholds than a weight can represent.
    """
    if not allow_clipping:
        terms = [term.without_repeats() for term in terms]

    def work(part: slice) -> ThresholdChoice:
        few = [term.of_rows(part) for term in terms]
        rows = _side_by_side(few, bias[part], correlation=correlation, clips=allow_clipping)
        top = None if ceiling is None else ceiling[part]
        return _searched(name, rows, limits, top, candidates, part.start)

    parts = [work(part) for part in row_blocks(len(bias), sum(t.weight.shape[1] for t in terms))]
    columns = zip(*(astuple(part) for part in parts), strict=True)
    return ThresholdChoice(*map(np.concatenate, columns))


def _searched(
    name: str,
    rows: _Rows,
    limits: TargetLimits,
    ceiling: np.ndarray | None,
    candidates: int,
    first: int,
) -> ThresholdChoice:
    """`search_thresholds` for some rows, of which `first` is the index of the first."""
    largest, widest = _fitting(name, rows, limits, first)
    top = widest
    if rows.clips:
        free = np.minimum(_bias_limit(rows.bias, limits), np.floor(CLIPPING_REACH * widest))
        top = np.maximum(widest, free)
    if ceiling is not None:
        allowed = np.maximum(np.floor(ceiling), 1.0)
        largest, top = np.minimum(largest, allowed), np.minimum(top, allowed)
    low = np.maximum(np.floor(largest / 2), 1.0)
    best, error = largest, _squared_error(rows, largest)
    largest_error = error
    best, error = _pass(rows, best, error, _spaced(low, top, candidates))
    spacing = np.ceil((top - low) / max(candidates - 1, 1))
    around = _spaced(np.maximum(best - spacing, low), np.minimum(best + spacing, top), candidates)
    best, error = _pass(rows, best, error, around)
    clipped = _outside(rows, best) if rows.clips else np.zeros(len(best), np.int64)
    return ThresholdChoice(
        best.astype(np.int64), largest.astype(np.int64), error, largest_error, clipped
    )


def search_scale(
    name: str,
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    *,
    limits: TargetLimits,
    room: float = 1.0,
    candidates: int = CANDIDATES,
) -> float:
    """The scale of a readout, real = scale * integer, with the smallest rounding error.

    One positive scale for all channels, so that the largest sum stays the largest. `terms`
    and `bias` are in logits, and J, summed over channels, has 1/scale in place of theta. `room`
    in (0, 1] makes the integers smaller by at least that factor.

    Raises
    ------
    ConversionError
        If all weights are zero.
    """
    rows = _side_by_side(terms, bias)
    largest = _largest_factor(name, rows, limits)
    with np.errstate(divide="ignore"):
        by_bias = float((limits.bias_max / np.abs(bias)).min(initial=np.inf))
    widest = min(float(_reach(rows, forgiven=0.5).min()), by_bias) * (1.0 - ROUNDING)
    if _outside(rows, np.full(len(bias), widest)).any():
        widest = largest
    factors = room * np.array(
        [largest, *np.linspace(max(widest, largest), largest / 2, candidates)]
    )
    errors = _squared_errors(rows, factors[:, None] * np.ones(len(bias)))
    return float(1.0 / factors[int(np.argmin([of.sum() for of in errors]))])


def _largest_factor(name: str, rows: _Rows, limits: TargetLimits) -> float:
    if not rows.weight.any():
        raise ConversionError(
            "all weights of the readout are zero", node=name, allowed="some signal"
        )
    with np.errstate(divide="ignore"):
        finest = 1.0 / (rows.high / np.abs(rows.weight)).min()
    worst_bias = float(np.abs(rows.bias).max(initial=0.0))
    return 1.0 / max(float(finest), worst_bias / limits.bias_max)


def _side_by_side(
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    *,
    correlation: float = CORRELATION,
    clips: bool = False,
) -> _Rows:
    weights, importance, together = [], [], []
    for term in terms:
        unit = 2.0**term.weight_exponent
        weight = np.asarray(term.weight, np.float64)
        weights.append(np.ascontiguousarray(weight if unit == 1.0 else weight / unit))
        moment = np.ones(term.weight.shape[1]) if term.moment is None else term.moment
        squared = np.atleast_2d(moment * unit**2)
        counts = 1 if term.counts is None else term.counts
        importance.append(counts * squared)
        together.append(counts * np.sqrt(term.taps * squared))
    return _Rows(
        _joined(weights),
        _joined(importance),
        _joined(together),
        np.asarray(bias, np.float64),
        np.concatenate([np.full(t.weight.shape[1], float(t.held.low)) for t in terms]),
        np.concatenate([np.full(t.weight.shape[1], float(t.held.high)) for t in terms]),
        correlation,
        clips,
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Parts (C, K) or (1, K) side by side, (1, K) only if all are; one part is not copied."""
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0])
    rows = max(len(part) for part in parts)
    return np.concatenate([np.broadcast_to(p, (rows, p.shape[1])) for p in parts], axis=1)


def _bias_limit(bias: np.ndarray, limits: TargetLimits) -> np.ndarray:
    """The largest theta per channel that the bias and the target allow."""
    with np.errstate(divide="ignore"):
        widest = limits.bias_max / np.abs(bias)
    return np.floor(np.minimum(float(limits.threshold_max), widest * (1.0 + ROUNDING)))


def _largest(name: str, rows: _Rows, limits: TargetLimits, first: int) -> np.ndarray:
    widest = np.floor(rows.reach(-rows.high, rows.high) * (1.0 + ROUNDING))
    theta = np.minimum(widest, _bias_limit(rows.bias, limits))
    if (theta < 1).any():
        channel = int(np.argmin(theta))
        worst = int(np.argmax(np.abs(rows.weight[channel]) / rows.high))
        raise ConversionError(
            "a single spike is worth more thresholds than a weight can hold",
            node=name,
            found=f"{abs(rows.weight[channel, worst]):.4g} thresholds in channel {first + channel}",
            allowed=f"at most {int(rows.high[worst])}",
            remedy="train with a larger threshold or weight decay",
        )
    return theta


def _reach(rows: _Rows, *, forgiven: float) -> np.ndarray:
    """The factor at which a channel's first weight is `forgiven` beyond its range: (C,)."""
    return rows.reach(rows.low - forgiven, rows.high + forgiven)


def _fitting(
    name: str, rows: _Rows, limits: TargetLimits, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest theta that fits unrounded, and the largest one that fits rounded.

    Rounding allows half a unit, and the negative side of two's complement has one unit more.
    """
    largest = _largest(name, rows, limits, first)
    widest = np.minimum(np.floor(_reach(rows, forgiven=0.5)), _bias_limit(rows.bias, limits))
    widest = np.maximum(widest, largest)
    # A tie may round outwards, and float64 may be wrong by one.
    outside = rows.leave(widest)
    for _ in range(2):
        too_wide = outside & (widest > largest)
        if not too_wide.any():
            break
        widest = np.where(too_wide, widest - 1, widest)
        outside = rows.leave(widest)
    return largest, np.where(outside, largest, widest)


def _spaced(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    """At most `count` integers per channel from `low` to `high`, evenly spaced: (count, C)."""
    steps = np.linspace(0.0, 1.0, count)[:, None]
    every = low + np.arange(count)[:, None]
    few = high - low < count
    return np.where(few, np.minimum(every, high), np.rint(low + steps * (high - low)))


def _pass(
    rows: _Rows, best: np.ndarray, error: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The better of `best` and all candidates, (n, C); the largest among equals."""
    best, error = best.copy(), error.copy()
    for theta, found in zip(candidates, _squared_errors(rows, candidates), strict=True):
        same = np.abs(found - error) <= EQUAL_ERROR_TOL * error
        better = (~same & (found < error)) | (same & (theta > best))
        best = np.where(better, theta, best)
        error = np.where(better, found, error)
    return best, error


def _squared_error(rows: _Rows, theta: np.ndarray) -> np.ndarray:
    """J of the module's docstring, float64 (C,), for thresholds (C,)."""
    errors: np.ndarray = _squared_errors(rows, theta[None])[0]
    return errors


def _squared_errors(rows: _Rows, thetas: np.ndarray) -> np.ndarray:
    """J as in `_squared_error`, float64 (n, C), for n thresholds per channel, (n, C)."""
    bounds = (rows.low, rows.high) if rows.clips else None
    thetas = np.ascontiguousarray(thetas, np.float64)
    apart, of_weights = rounding_errors(
        rows.weight, rows.importance, rows.weighting, thetas, bounds
    )
    bias = rows.bias * thetas
    together = np.rint(bias) - bias
    if rows.correlation:
        together += np.sqrt(rows.correlation) * of_weights
    errors: np.ndarray = ((1.0 - rows.correlation) * apart + together**2) / thetas**2
    return errors


def _outside(rows: _Rows, theta: np.ndarray) -> np.ndarray:
    """Number of rounded weights per channel that do not fit their bits: int64 (C,)."""
    return outside(rows.weight, theta, rows.low, rows.high)
