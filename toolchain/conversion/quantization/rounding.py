"""Rounding of a population's weights for given thresholds: to the nearest, or compensating.

`round_nearest` rounds every weight separately. `round_gptq` lets the errors of a channel's weights
compensate each other on calibration data (see `gptq`).

Three things are this project's own. The bias is the last column, against an input that is always
1; with its many bits it compensates the mean error of all others (the bias correction of Nagel et
al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019,
follows from it). Damping is relative to each column's own moment, since graded inputs, spikes and
the bias differ by orders of magnitude. Among several thresholds, and rounding to the
nearest, each channel takes the choice with the smallest error on the calibration data, so that its
error there is never above that of rounding to the nearest.

An input that was never active on the calibration data does not determine its weights: they are
rounded to the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.quantization.gptq import ColumnRule, column_rule
from toolchain.conversion.quantization.input_moments import InputMoments
from toolchain.conversion.quantization.row_blocks import of_blocks
from toolchain.conversion.quantization.threshold_search import ErrorTerm
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits
from toolchain.threads import share

DAMPING = 0.01
"""Share of a column's own moment added to the Hessian's diagonal; GPTQ's `percdamp`."""
AT_ONCE = 1 << 23
"""Values that are rounded at once, of some channels with all their candidates: 64 MiB."""
INT32 = IntRange.signed(32)


@dataclass(frozen=True, eq=False)
class Rounded:
    """The integers of one population.

    Attributes
    ----------
    weights:
        int32, or int64 where their ranges need it, (C, K) each, one per synapse.
    bias:
        int64, (C,).
    clamped:
        int64, (C,): number of values set to the end of their range because their target is beyond.
    """

    weights: tuple[np.ndarray, ...]
    bias: np.ndarray
    clamped: np.ndarray


@dataclass(frozen=True, eq=False)
class Compensated(Rounded):
    """The integers of `round_gptq`, with its errors.

    Attributes
    ----------
    threshold:
        float64, (C,): the chosen candidate, the factor from thresholds to integers.
    error, nearest_error:
        float64, (C,): mean squared error of the current of one step on the calibration data, in
        thresholds, of the result, and of the first candidate rounded to the nearest.
    kept_nearest:
        bool, (C,): rounded to the nearest, because compensation did not lower the error.
    undetermined:
        Whether the calibration data leave some weights undetermined (fewer independent rows than
        inputs); damping then decides in favour of small changes.
    """

    threshold: np.ndarray
    error: np.ndarray
    nearest_error: np.ndarray
    kept_nearest: np.ndarray
    undetermined: bool


def round_nearest(
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    threshold: np.ndarray,
    *,
    limits: TargetLimits,
) -> Rounded:
    """Round each weight and bias to the nearest integer in range, half to even.

    `terms` and `bias` are in thresholds, `threshold` (C,) is the factor to integers: theta, or
    1 / scale for a readout with terms in logits.
    """
    weights = tuple(np.empty(term.weight.shape, _integer(term)) for term in terms)

    def work(part: slice) -> np.ndarray:
        factor = threshold[part, None]
        clamped = np.zeros(len(factor), np.int64)
        for term, into in zip(terms, weights, strict=True):
            target = term.weight[part] / 2.0**term.weight_exponent
            np.rint(np.multiply(target, factor, out=target), out=target)
            into[part] = within = np.clip(target, term.held.low, term.held.high)
            clamped += (within != target).sum(axis=1)
        return clamped

    clamped = of_blocks(work, len(bias), sum(t.weight.shape[1] for t in terms))
    target = np.rint(bias * threshold)
    whole = np.clip(target, -limits.bias_max, limits.bias_max)
    clamped = np.concatenate(clamped) + (whole != target)
    return Rounded(weights, whole.astype(np.int64), clamped)


def _integer(term: ErrorTerm) -> type[np.signedinteger[Any]]:
    return np.int32 if INT32.contains(term.held.low, term.held.high) else np.int64


def round_gptq(
    name: str,
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    candidates: np.ndarray,
    moments: InputMoments,
    *,
    limits: TargetLimits,
    common: bool = False,
    damping: float = DAMPING,
) -> Compensated:
    """Round so that the current on the calibration data changes as little as possible.

    Parameters
    ----------
    terms, bias, limits:
        As in `round_nearest`.
    candidates:
        (n, C): n factors per channel to choose from by the remaining error; the first is also tried
        with rounding to the nearest.
    moments:
        Second moments of the inputs, in spikes (or graded input units).
    common:
        Whether all channels take the same candidate, as in a readout.

    Raises
    ------
    ConversionError
        If `moments` contain no calibration data, or do not fit `terms`.
    """
    width = sum(t.weight.shape[1] for t in terms) + 1
    if moments.rows == 0 or moments.width != width:
        raise ConversionError(
            "the calibration data do not fit the layer",
            node=name,
            found=f"{moments.rows} rows of {moments.width - 1} inputs",
            allowed=f"rows of {width - 1} inputs",
        )
    size = len(bias) // moments.parts
    step = size if common else max(1, AT_ONCE // (width * len(candidates)))

    real, whole = np.empty((3, len(bias))), np.empty((2, len(bias)), np.int64)
    found = Compensated(
        weights=tuple(np.empty(t.weight.shape, _integer(t)) for t in terms),
        bias=whole[0],
        clamped=whole[1],
        threshold=real[0],
        error=real[1],
        nearest_error=real[2],
        kept_nearest=np.empty(len(bias), bool),
        undetermined=False,
    )

    def of_part(part: int) -> tuple[ColumnRule, list[_Tried]]:
        rule = column_rule(moments, part, _units(terms), damping)

        def of_channels(start: int) -> _Tried | None:
            rows = slice(part * size + start, part * size + min(start + step, size))
            tried = _try(rule, terms, bias, candidates, rows, limits)
            if common:
                return tried
            _keep(tried, rule.order, tried.error.argmin(axis=0), found)
            return None

        tried = share(of_channels, range(0, size, step))
        return rule, [t for t in tried if t is not None]

    parts = share(of_part, range(moments.parts))
    if common:
        best = sum(t.error.sum(axis=1) for _, tried in parts for t in tried).argmin()
        for rule, (tried,) in parts:
            _keep(tried, rule.order, np.full(size, best), found)
    return replace(found, undetermined=any(rule.undetermined for rule, _ in parts))


@dataclass(frozen=True, eq=False)
class _Tried:
    """What all candidates give for the channels `rows`; rounding to the nearest comes first.

    `values` are integers, float64 (K + 1, n, C); `clamped`, `threshold` and `error` are (n, C).
    """

    rows: slice
    values: Tensor
    clamped: np.ndarray
    threshold: np.ndarray
    error: np.ndarray


def _try(
    rule: ColumnRule,
    terms: Sequence[ErrorTerm],
    bias: np.ndarray,
    candidates: np.ndarray,
    rows: slice,
    limits: TargetLimits,
) -> _Tried:
    low, high = _ranges(terms, limits)[:, rule.order].tolist()
    threshold = np.concatenate([candidates[:1], candidates])[:, rows]
    exact = torch.from_numpy(_targets(terms, bias, rows)).T[rule.order]
    values = (exact[:, None, :] * torch.from_numpy(threshold)).flatten(1)
    nearest, others = values[:, : exact.shape[1]], values[:, exact.shape[1] :]
    wanted, rounded = nearest.clone(), nearest.round()
    bounds = torch.tensor([low, high], dtype=torch.float64)[:, :, None]
    nearest.copy_(rounded.clamp(*bounds))
    clamped, error = rule.round(others, low, high)
    clamped = torch.cat([(nearest != rounded).sum(0), clamped])
    error = torch.cat([rule.error(nearest - wanted), error])
    return _Tried(
        rows,
        values.reshape(len(values), *threshold.shape),
        clamped.numpy().reshape(threshold.shape),
        threshold,
        error.numpy().reshape(threshold.shape) / threshold**2,
    )


def _keep(tried: _Tried, order: Tensor, best: np.ndarray, found: Compensated) -> None:
    """Write one candidate per channel, (C,), to `found`."""
    channels, start = np.arange(len(best)), 0
    values = torch.empty_like(tried.values[:, 0])
    values[order] = tried.values[:, best, channels]
    by_channel = values.T.numpy()
    for weights in found.weights:
        weights[tried.rows] = by_channel[:, start : start + weights.shape[1]]
        start += weights.shape[1]
    found.bias[tried.rows] = by_channel[:, -1]
    found.clamped[tried.rows] = tried.clamped[best, channels]
    found.threshold[tried.rows] = tried.threshold[best, channels]
    found.error[tried.rows] = tried.error[best, channels]
    found.nearest_error[tried.rows] = tried.error[0]
    found.kept_nearest[tried.rows] = best == 0


def _targets(terms: Sequence[ErrorTerm], bias: np.ndarray, rows: slice) -> np.ndarray:
    """Exact values of some channels, (C, K + 1), in thresholds: all synapses, the bias last."""
    columns = [t.weight[rows] / 2.0**t.weight_exponent for t in terms]
    return np.concatenate([*columns, np.asarray(bias, np.float64)[rows, None]], axis=1)


def _units(terms: Sequence[ErrorTerm]) -> np.ndarray:
    """Current of one integer unit of each column, (K + 1,)."""
    units = [np.full(t.weight.shape[1], 2.0**t.weight_exponent) for t in terms]
    return np.concatenate([*units, np.ones(1)])


def _ranges(terms: Sequence[ErrorTerm], limits: TargetLimits) -> np.ndarray:
    """Lowest and highest integer of each column, (2, K + 1)."""
    held = [np.repeat([[t.held.low], [t.held.high]], t.weight.shape[1], axis=1) for t in terms]
    bias = np.array([[-limits.bias_max], [limits.bias_max]])
    return np.concatenate([*held, bias], axis=1).astype(np.float64)
