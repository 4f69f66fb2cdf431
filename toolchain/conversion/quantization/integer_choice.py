"""Threshold search and compensating rounding, with the exponents from `thresholds`.

`choose_integers` decides how the branches of a population share its scale, with the largest
thresholds that fit. Here each channel's threshold is then searched for the smallest
rounding error (`threshold_search`), and the weights are rounded to the nearest, or so that errors
compensate each other on calibration data (`rounding`). An identity is rounded to the nearest in
either case: it is fine enough (see `thresholds`), and as a branch with one input per channel it
would need its own second moments for every channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from toolchain.conversion.quantization.calibration import LayerStatistics
from toolchain.conversion.quantization.population_rows import (
    FloatRows,
    IntegerBranch,
    IntegerRows,
    Scales,
)
from toolchain.conversion.quantization.rounding import Rounded, round_gptq, round_nearest
from toolchain.conversion.quantization.row_blocks import ScaledRows
from toolchain.conversion.quantization.threshold_search import (
    ErrorTerm,
    search_scale,
    search_thresholds,
)
from toolchain.conversion.quantization.thresholds import choose_integers, choose_scales
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits

THRESHOLDS = ("search", "largest")
NEAREST = "nearest"
ROUNDINGS = (NEAREST, "gptq")
SPACED = 6
"""Thresholds that compensating rounding tries besides the largest and the searched one."""


@dataclass(frozen=True, eq=False)
class IntegerChoice:
    """A `ChooseIntegers` with the user's options.

    Attributes
    ----------
    thresholds:
        "search", or "largest" for the largest that fits.
    rounding:
        "nearest" or "gptq"; the latter needs moments of every layer in `statistics`.
    allow_clipping:
        Whether the search may clip a channel's largest weights if that lowers the error.
    statistics:
        Measurements on the calibration data, by layer; may be empty.
    free:
        Thresholds that rounding to the nearest has found without `room`, by layer.
    """

    thresholds: str = "search"
    rounding: str = "nearest"
    allow_clipping: bool = False
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    free: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("no such choice of thresholds", self.thresholds, THRESHOLDS),
            ("no such rounding", self.rounding, ROUNDINGS),
        ):
            if value not in allowed:
                raise ConversionError(what, found=value, allowed=", ".join(allowed))
        if self.allow_clipping and self.thresholds != "search":
            raise ConversionError(
                "clipping is part of the threshold search",
                found=f"thresholds {self.thresholds}",
                allowed="thresholds search",
            )

    def __call__(self, rows: FloatRows, weight_bits: int, limits: TargetLimits) -> IntegerRows:
        """Choose integers as `choose_integers` does.

        Where all channels of a layer have one threshold, it is the largest that fits all, and none
        is searched.
        """
        common = limits.one_threshold and rows.lam is not None
        if (self.thresholds, self.rounding) == ("largest", "nearest") and not common:
            return choose_integers(rows, weight_bits, limits)
        start = choose_scales(rows, weight_bits, limits)
        if common:
            start = replace(start, theta=np.full_like(start.theta, start.theta.min()))
        searches = self.thresholds == "search" and not common
        terms = self._in_thresholds(rows, start, weight_bits)
        if rows.lam is None:
            return self._readout(rows, start, terms, weight_bits, limits)
        bias = rows.bias / rows.lam
        searched, ceiling = start.theta, np.full(len(start.theta), float(limits.threshold_max))
        if searches:
            ceiling = self._ceiling(rows, weight_bits, limits)
            searched = search_thresholds(
                rows.name,
                terms,
                bias,
                limits=limits,
                ceiling=ceiling,
                allow_clipping=self.allow_clipping,
            ).threshold
        if self.rounding == NEAREST:
            rounded = round_nearest(terms, bias, searched, limits=limits)
            if (rows.room == 1).all():
                self.free[rows.name] = searched.astype(np.int64)
            return _rows(rows, start, searched, rounded, ())
        candidates = np.stack([searched, start.theta])
        if searches:
            low, high = start.theta / 2, np.maximum(searched, start.theta)
            spaced = low + (high - low) * np.linspace(0, 1, SPACED)[:, None]
            candidates = np.concatenate([candidates, np.rint(spaced)])
        candidates = np.maximum(np.minimum(candidates, np.floor(ceiling)), 1.0)
        return self._compensated(rows, start, terms, bias, candidates, weight_bits, limits)

    def _ceiling(self, rows: FloatRows, weight_bits: int, limits: TargetLimits) -> np.ndarray:
        """Upper limits of the searched thresholds, (C,).

        `room` is a factor on the threshold chosen without it.
        """
        ceiling = np.full(len(rows.bias), float(limits.threshold_max))
        if (rows.room < 1).any():
            if rows.name not in self.free:
                plain = replace(self, rounding=NEAREST)
                plain(replace(rows, room=np.ones(1)), weight_bits, limits)
            ceiling = np.maximum(np.floor(self.free[rows.name] * rows.room), 1.0)
        return ceiling

    def _readout(
        self,
        rows: FloatRows,
        start: Scales,
        terms: Sequence[ErrorTerm],
        weight_bits: int,
        limits: TargetLimits,
    ) -> IntegerRows:
        if start.scale is None:
            raise TypeError("a readout needs a scale")
        channels = len(rows.bias)
        factors = [1.0 / start.scale]
        if self.thresholds == "search":
            room = float(rows.room.min())
            scale = search_scale(rows.name, terms, rows.bias, limits=limits, room=room)
            factors = [1.0 / scale, *factors]
        if self.rounding == "nearest":
            factor = np.full(channels, factors[0])
            rounded = round_nearest(terms, rows.bias, factor, limits=limits)
            return _rows(rows, start, factor, rounded, ())
        if self.thresholds == "search":
            factors += list(np.linspace(factors[1] / 2, max(factors), SPACED))
        candidates = np.array(factors)[:, None] * np.ones(channels)
        return self._compensated(rows, start, terms, rows.bias, candidates, weight_bits, limits)

    def _compensated(
        self,
        rows: FloatRows,
        start: Scales,
        terms: Sequence[ErrorTerm],
        bias: np.ndarray,
        candidates: np.ndarray,
        weight_bits: int,
        limits: TargetLimits,
    ) -> IntegerRows:
        statistics = self.statistics.get(rows.name)
        if statistics is None or statistics.moments is None:
            raise ConversionError(
                "error-compensating rounding needs calibration data",
                node=rows.name,
                remedy="calibrate=DATA",
            )
        compensates = statistics.compensated
        active = [t for t, included in zip(terms, compensates, strict=True) if included]
        if not active:
            rounded = round_nearest(terms, bias, candidates[0], limits=limits)
            return _rows(rows, start, candidates[0], rounded, ())
        found = round_gptq(
            rows.name,
            active,
            bias,
            candidates,
            statistics.moments,
            limits=limits,
            common=rows.lam is None,
        )
        others = [t for t, included in zip(terms, compensates, strict=True) if not included]
        nearest = round_nearest(others, np.zeros(len(bias)), found.threshold, limits=limits)
        each = {True: iter(found.weights), False: iter(nearest.weights)}
        weights = tuple(next(each[included]) for included in compensates)
        notes: tuple[str, ...] = ()
        if found.undetermined:
            notes = (
                "the calibration data leave some weights undetermined; damping decided for small "
                "changes (more samples may help)",
            )
        rounded = Rounded(weights, found.bias, found.clamped + nearest.clamped)
        return _rows(rows, start, found.threshold, rounded, notes)

    def _in_thresholds(
        self, rows: FloatRows, start: Scales, weight_bits: int
    ) -> tuple[ErrorTerm, ...]:
        """The branches in thresholds per spike (logits for a readout), with the chosen exponents.

        A branch in two synapses is one term with the finer exponent and a wider range.
        """
        signed = IntRange.signed(weight_bits)
        lam = np.ones(len(rows.bias)) if rows.lam is None else rows.lam
        statistics = self.statistics.get(rows.name)
        included = [False] * len(rows.branches)
        measured: Iterator[np.ndarray] = iter(())
        if statistics is not None and statistics.moments is not None:
            included = list(statistics.compensated)
            if any(included):
                measured = iter(statistics.moments.second_moments())
        terms = []
        for index, branch in enumerate(rows.branches):
            low, high = start.exponents[index]
            held = signed if low == high else IntRange(-signed.high, signed.high)
            held = IntRange(held.low << (high - low), held.high << (high - low))
            moment, taps = np.full(branch.rows.shape[1], branch.second_moment), branch.taps
            if included[index]:
                moment, taps = next(measured), 1
            weight = ScaledRows(branch.rows, np.divide, lam[:, None])
            terms.append(ErrorTerm(weight, held, low, moment, taps))
        return tuple(terms)


def _rows(
    rows: FloatRows,
    start: Scales,
    threshold: np.ndarray,
    rounded: Rounded,
    notes: tuple[str, ...],
) -> IntegerRows:
    branches = tuple(
        _branch(weight, *exponents)
        for weight, exponents in zip(rounded.weights, start.exponents, strict=True)
    )
    theta = start.theta if rows.lam is None else threshold.astype(np.int64)
    factor = np.asarray(threshold, np.float64) if rows.lam is None else theta / rows.lam
    scale = float(1.0 / factor[0]) if rows.lam is None else None
    bias = rounded.bias.astype(np.float64)
    return IntegerRows(factor, theta, scale, branches, bias, int(rounded.clamped.sum()), notes)


def _branch(weight: np.ndarray, low: int, high: int) -> IntegerBranch:
    """Integers of one branch, as one synapse or as two with these exponents."""
    if low == high:
        return IntegerBranch(((low, weight),))
    upper = np.rint(weight / 2.0 ** (high - low)).astype(np.int64)
    return IntegerBranch(((high, upper), (low, weight - (upper << (high - low)))))
