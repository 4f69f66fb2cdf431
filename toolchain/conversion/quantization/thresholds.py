"""Choice of a population's thresholds, weight exponents and integer weights.

For an output channel with float threshold `lam` and integer threshold `theta`, a row of real
weights (times the value of one input spike) becomes

    W_int = round(theta * row / lam / 2^exponent)

Theta is free. Here it is the largest integer for which the weights fit their bits;
`threshold_search` then looks for a better one. With several branches the one with the largest
weights would set theta for all (an identity is worth about one threshold per spike, a convolution's
weight a tenth of that), so branches may use the synapse's weight exponent: candidates raise the
exponent of the branch that limits the others, step by step, and the one with the smallest
rounding error wins, of those in which no branch is lost. The error is measured, in thresholds:
squared, summed over all weights (so by fan-in), times the largest spike squared.

A branch with one weight per channel (an identity, a mean over a window), or from a plane of one
channel at the border, that one exponent leaves coarser than `SPLIT_TOL` is split into two synapses:
high bits with the exponent, low bits without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from toolchain.conversion.quantization.population_rows import (
    Branch,
    FloatRows,
    IntegerBranch,
    IntegerRows,
    Scales,
)
from toolchain.conversion.quantization.row_blocks import magnitudes, row_blocks
from toolchain.conversion.quantization.threshold_search import ROUNDING
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits

SPLIT_TOL = 1 / 256
"""Largest relative error of such a weight in one synapse; above it, two are used.

It is half a unit of the largest 8-bit weight.
"""
THREE_BITS = 1 / 8
"""Largest rounding error of a branch, relative to its largest weight.

Above it, less than three bits remain: half a unit if the largest weight is four.
"""
NEGLIGIBLE = 1 / 256
"""Thresholds per step, for any spikes, below which a branch may become coarse or 0 in a channel."""
PATIENCE = 12
"""Candidates without improvement after which the search ends, with more than two branches.

It keeps sums of dozens of branches affordable.
"""


ChooseIntegers = Callable[[FloatRows, int, TargetLimits], IntegerRows]


def choose_integers(rows: FloatRows, weight_bits: int, limits: TargetLimits) -> IntegerRows:
    """Thresholds (or the readout's scale) and integer weights for one population.

    Raises
    ------
    ConversionError
        If a spike is worth more thresholds than weights can represent, all weights of a readout are
        zero, or the branches' scales are too far apart.
    """
    largest = IntRange.signed(weight_bits).high
    peaks = np.stack([magnitudes(b.rows) for b in rows.branches])
    if rows.lam is None and not peaks.any():
        raise ConversionError(
            "all weights of the readout are zero", node=rows.name, allowed="some signal"
        )
    relative = peaks.max(axis=1, keepdims=True) if rows.lam is None else peaks / rows.lam
    best: tuple[float, _Scaled, IntegerRows] | None = None
    refused: ConversionError | None = None
    least, worse = np.inf, 0
    for exponents in _exponents(relative, largest, limits.max_weight_exponent):
        if worse == PATIENCE and len(rows.branches) > 2:
            break
        try:
            scaled = _scaled(rows, peaks, np.array(exponents), largest, limits)
        except ConversionError as error:
            refused = refused or error
            continue
        chosen, error_now = _rounded(rows, scaled, weight_bits, limits)
        worse += 1
        if best is not None and error_now >= best[0]:
            continue
        lost = _lost(rows, chosen, weight_bits) if len(rows.branches) > 1 else None
        if lost is None:
            best, worse = (error_now, scaled, chosen), 0
        elif error_now < least:
            refused, least, worse = lost, error_now, 0
    if best is None:
        raise refused or TypeError("unreachable: no candidate and no error")
    _, scaled, chosen = best
    if (rows.room < 1).any():
        chosen, _ = _rounded(rows, _lowered(rows, scaled), weight_bits, limits)
    return chosen


def choose_scales(rows: FloatRows, weight_bits: int, limits: TargetLimits) -> Scales:
    """The scales of `choose_integers`; no weight is rounded if there is only one choice.

    Raises
    ------
    ConversionError
        See `choose_integers`.
    """
    if len(rows.branches) == 1:
        largest = IntRange.signed(weight_bits).high
        peaks = magnitudes(rows.branches[0].rows)[None]
        if rows.lam is not None or peaks.any():
            scaled = _scaled(rows, peaks, np.zeros(1, np.int64), largest, limits)
            if (rows.room < 1).any():
                scaled = _lowered(rows, scaled)
            if not _smallest_exponent(float((peaks[0] * scaled.factor).max()), largest, 1):
                return Scales(scaled.theta, scaled.scale, ((0, 0),))
    chosen = choose_integers(rows, weight_bits, limits)
    exponents = tuple(branch.exponents(weight_bits) for branch in chosen.branches)
    return Scales(chosen.theta, chosen.scale, exponents)


def _exponents(peaks: np.ndarray, largest: int, highest: int) -> list[tuple[int, ...]]:
    """Weight exponents to try, one per branch; `peaks` are the largest weights, (branches, C).

    Raising all exponents together only doubles theta, so one is always 0. For two branches few are
    left, and all are tried. For more, two paths from all zeros raise one exponent per step: that of
    the branch that limits the largest share of its channels, and that of the branch that limits
    one channel most.
    """
    if len(peaks) == 1:
        return [(0,)]
    if len(peaks) == 2:
        pairs = product(range(highest + 1), repeat=2)
        return sorted((p for p in pairs if min(p) == 0), key=sum)
    paths = [_path(peaks, largest, highest, choice) for choice in (_most_channels, _tightest)]
    return list(dict.fromkeys(exponents for path in paths for exponents in path))


def _path(
    peaks: np.ndarray, largest: int, highest: int, urgency: Callable[[np.ndarray], np.ndarray]
) -> Iterator[tuple[int, ...]]:
    exponents = np.zeros(len(peaks), np.int64)
    while exponents.min() == 0:
        yield tuple(int(e) for e in exponents)
        with np.errstate(divide="ignore"):
            room = largest * 2.0 ** exponents[:, None] / peaks
        urgent = urgency(room)
        urgent[exponents >= highest] = 0
        if not urgent.any():
            return
        exponents[urgent.argmax()] += 1


def _most_channels(room: np.ndarray) -> np.ndarray:
    """Share of its own nonzero channels that each branch limits: (branches,)."""
    taken = np.isfinite(room)
    holds = taken & (room == room.min(axis=0))
    return holds.sum(axis=1) / np.maximum(taken.sum(axis=1), 1)


def _tightest(room: np.ndarray) -> np.ndarray:
    """Reciprocal of the smallest theta that each branch allows in a channel: (branches,)."""
    return 1.0 / room.min(axis=1)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Factor, thresholds and scale as in `IntegerRows`."""

    factor: np.ndarray
    theta: np.ndarray
    scale: float | None


def _scaled(
    rows: FloatRows, peaks: np.ndarray, exponents: np.ndarray, largest: int, limits: TargetLimits
) -> _Scaled:
    """The largest factor that these exponents allow."""
    reach = largest * 2.0 ** exponents[:, None]
    channels = peaks.shape[1]
    if rows.lam is None:
        worst_bias = np.abs(rows.bias).max()
        widest = (peaks / reach).max()
        scale = float(max(widest, worst_bias / limits.bias_max))
        return _Scaled(np.full(channels, 1.0 / scale), np.zeros(channels, np.int64), scale)
    theta = _thresholds(rows.name, peaks / rows.lam, rows.bias / rows.lam, reach, limits)
    return _Scaled(theta / rows.lam, theta, None)


def _lowered(rows: FloatRows, scaled: _Scaled) -> _Scaled:
    """The scales after the factors of the range analysis are applied."""
    if rows.lam is None:
        if scaled.scale is None:
            raise TypeError("a readout needs a scale")
        scale = float(scaled.scale / rows.room.min())
        return _Scaled(np.full(len(scaled.factor), 1.0 / scale), scaled.theta, scale)
    theta = np.maximum(np.floor(scaled.theta * rows.room), 1).astype(np.int64)
    return _Scaled(theta / rows.lam, theta, None)


def _thresholds(
    name: str, weight: np.ndarray, bias: np.ndarray, reach: np.ndarray, limits: TargetLimits
) -> np.ndarray:
    """The largest integer theta per channel for which weights, bias and theta fit.

    `weight`, (branches, C), and `bias`, (C,), are each channel's largest weights and its bias, in
    thresholds; `reach`, (branches, 1), bounds the integer weights.
    """
    with np.errstate(divide="ignore"):
        widest = np.minimum((reach / weight).min(axis=0), limits.bias_max / np.abs(bias))
    theta = np.floor(np.minimum(float(limits.threshold_max), widest * (1.0 + ROUNDING)))
    if (theta < 1).any():
        channel = int(np.argmin(theta))
        worth = weight[:, channel]
        branch = int(np.argmax(worth / reach[:, 0]))
        raise ConversionError(
            "a single spike is worth more thresholds than a weight can hold",
            node=name,
            found=f"{worth[branch]:.4g} thresholds in channel {channel}",
            allowed=f"at most {int(reach[branch, 0])}",
            remedy="train with a larger threshold or weight decay",
        )
    return theta.astype(np.int64)


def _rounded(
    rows: FloatRows, scaled: _Scaled, weight_bits: int, limits: TargetLimits
) -> tuple[IntegerRows, float]:
    """Round everything for a given factor, each branch with the smallest exponent that fits.

    Also returns the squared rounding error, in thresholds per step, summed over all weights.
    """
    factor = scaled.factor
    unit = factor if rows.lam is None else factor * rows.lam
    branches, total = [], 0.0
    for branch in rows.branches:
        integers, squared = _round_branch(branch, factor, weight_bits, limits)
        branches.append(integers)
        total += branch.second_moment * float((squared / unit**2).sum())
    bias = np.rint(rows.bias * factor)
    return IntegerRows(factor, scaled.theta, scaled.scale, tuple(branches), bias), total


def _round_branch(
    branch: Branch, factor: np.ndarray, weight_bits: int, limits: TargetLimits
) -> tuple[IntegerBranch, np.ndarray]:
    """Integers of one branch, and their squared error per channel, float64 (C,), in units of 1."""
    largest = IntRange.signed(weight_bits).high
    peak = float((magnitudes(branch.rows) * factor).max())
    exponent = _smallest_exponent(peak, largest, limits.max_weight_exponent)
    if exponent and (branch.uniform or branch.constant):
        return _round_in_two(branch, factor, exponent, largest, limits)
    integers = np.empty(branch.rows.shape, np.int32)
    squared = np.empty(branch.rows.shape[0])
    for part in row_blocks(*branch.rows.shape):
        exact = branch.rows[part] * factor[part, None]
        rounded = np.rint(exact / 2.0**exponent)
        integers[part] = rounded
        exact -= rounded * 2.0**exponent
        squared[part] = np.einsum("cn,cn->c", exact, exact)
    return IntegerBranch(((exponent, integers),)), squared


def _round_in_two(
    branch: Branch, factor: np.ndarray, exponent: int, largest: int, limits: TargetLimits
) -> tuple[IntegerBranch, np.ndarray]:
    """Integers of one branch in two synapses, since one with this exponent is too coarse."""
    exact = branch.rows[:] * factor[:, None]
    high = np.rint(exact / 2.0**exponent)
    rest = exact - high * 2.0**exponent
    parts = [(exponent, high.astype(np.int64))]
    if (np.abs(rest) > SPLIT_TOL * np.abs(exact)).any():
        exponent = _smallest_exponent(
            float(np.abs(rest).max()), largest, limits.max_weight_exponent
        )
        low = np.rint(rest / 2.0**exponent)
        rest = rest - low * 2.0**exponent
        parts.append((exponent, low.astype(np.int64)))
    return IntegerBranch(tuple(parts)), np.einsum("cn,cn->c", rest, rest)


def _smallest_exponent(peak: float, largest: int, highest: int) -> int:
    """The smallest shift with which weights up to `peak`, rounded, are at most `largest`."""
    exponent = 0
    while exponent < highest and np.rint(peak / 2.0**exponent) > largest:
        exponent += 1
    return exponent


def negligible_channels(branch: Branch, lam: np.ndarray | None) -> np.ndarray:
    """Channels to which a branch adds no notable part of a threshold, for any spikes: bool (C,)."""
    if lam is None:
        return np.zeros(branch.rows.shape[0], bool)
    worst = np.abs(branch.rows[:]).sum(axis=1) * branch.largest_spike / lam
    return np.asarray(worst < NEGLIGIBLE)


def _lost(rows: FloatRows, chosen: IntegerRows, weight_bits: int) -> ConversionError | None:
    """An error if one branch would nearly vanish beside another."""
    half_unit = 0.5 / IntRange.signed(weight_bits).high
    most = max(THREE_BITS, 1.5 * half_unit)
    for branch, integers in zip(rows.branches, chosen.branches, strict=True):
        total, exact = integers.total, branch.rows[:]
        if branch.identity:
            lost = ((total == 0) & (exact != 0)).any(axis=1)
            what = "rounds to zero in some channel"
        else:
            off = np.abs(total / chosen.factor[:, None] - exact).max(axis=1)
            relative = off / (np.abs(exact).max() or 1.0)
            lost = relative > most
            few = ", to less than three bits" if most == THREE_BITS else ""
            what = f"is rounded by {100 * relative.max():.0f} % of that{few}"
        if (lost & ~negligible_channels(branch, rows.lam)).any():
            return ConversionError(
                f"the branches that meet here are too far apart in scale for {weight_bits}-bit "
                "weights",
                node=rows.name,
                found=f"{_scales(rows.branches, rows.lam)}; {branch.name} {what}",
                allowed=f"a rounding by {100 * most:.0f} % of a branch's largest weight, and no "
                "identity that becomes 0",
                remedy="more weight bits; or bring the branches together in training: BatchNorm "
                "in front of the addition, or a larger threshold in front of the stronger branch",
            )
    return None


def _scales(branches: Sequence[Branch], lam: np.ndarray | None) -> str:
    unit = "" if lam is None else " thresholds"
    by = np.ones(1) if lam is None else lam
    return ", ".join(
        f"a spike of {b.name} is worth up to {(magnitudes(b.rows) / by).max():.3g}{unit}"
        for b in branches
    )
