"""Rounding of a population's weights for given thresholds: to the nearest, or compensating.

`round_nearest` rounds every weight separately. `round_gptq` follows GPTQ (Frantar et al., "GPTQ:
Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023, built on
Optimal Brain Quantization, Frantar & Alistarh, NeurIPS 2022): it rounds column by column, and the
columns not rounded yet compensate the error on calibration data, so that the
layer's output is kept, not its weights. With `H` the Hessian of the squared output error and
`H^-1 = U^T U`, U upper triangular, column i does

    q_i = round(w_i),   w_j -= (w_i - q_i) / U_ii * U_ij   for all j > i

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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.quantization.input_moments import InputMoments
from toolchain.conversion.quantization.row_blocks import of_blocks
from toolchain.conversion.quantization.threshold_search import ErrorTerm
from toolchain.errors import ConversionError
from toolchain.int_range import IntRange, TargetLimits

DAMPING = 0.01
"""Share of a column's own moment added to the Hessian's diagonal; GPTQ's `percdamp`."""
BLOCK = 128
"""Columns rounded before the rest is updated at once; GPTQ's block size."""
INT32 = IntRange.signed(32)
DETERMINED = 1e-6
"""Smallest pivot, relative to a column's moment, of an input that is independent of others."""


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
        Number of values set to the end of their range because their target is beyond it.
    """

    weights: tuple[np.ndarray, ...]
    bias: np.ndarray
    clamped: int


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
        Number of channels rounded to the nearest because compensation did not lower the error.
    undetermined:
        Whether the calibration data leave some weights undetermined (fewer independent rows than
        inputs); damping then decides in favour of small changes.
    """

    threshold: np.ndarray
    error: np.ndarray
    nearest_error: np.ndarray
    kept_nearest: int
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

    def work(part: slice) -> int:
        factor, clamped = threshold[part, None], 0
        for term, into in zip(terms, weights, strict=True):
            target = term.weight[part] / 2.0**term.weight_exponent
            np.rint(np.multiply(target, factor, out=target), out=target)
            into[part] = within = np.clip(target, term.held.low, term.held.high)
            clamped += int((within != target).sum())
        return clamped

    clamped = sum(of_blocks(work, len(bias), sum(t.weight.shape[1] for t in terms)))
    target = np.rint(bias * threshold)
    whole = np.clip(target, -limits.bias_max, limits.bias_max)
    clamped += int((whole != target).sum())
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
    if moments.rows == 0 or moments.gram.shape[1] != width:
        raise ConversionError(
            "the calibration data do not fit the layer",
            node=name,
            found=f"{moments.rows} rows of {moments.gram.shape[1] - 1} inputs",
            allowed=f"rows of {width - 1} inputs",
        )
    low, high = _ranges(terms, limits)
    values, clamped = _nearest(_targets(terms, bias, candidates[0]), low, high)
    tried = np.concatenate([candidates[:1], candidates])
    every = np.empty((len(tried), *values.shape))
    outside = np.empty((len(tried), len(values)), np.int64)
    error = np.empty((len(tried), len(values)))
    every[0], outside[0] = values, clamped
    undetermined = False
    size = len(values) // moments.parts
    for part in range(moments.parts):
        rows = slice(part * size, (part + 1) * size)
        gram = _current_moments(moments, part, terms)
        target = np.stack([_targets(terms, bias, c)[rows] for c in candidates])
        found, beyond, free = _compensated(target.reshape(-1, width), gram, low, high, damping)
        undetermined |= free
        every[1:, rows] = found.reshape(target.shape)
        outside[1:, rows] = beyond.reshape(target.shape[:2])
        for index, factor in enumerate(tried[:, rows]):
            goal = target[max(index - 1, 0)]
            error[index, rows] = _output_error(every[index, rows] - goal, gram) / factor**2
    best = error.argmin(axis=0)
    if common:
        best = np.full(len(values), error.sum(axis=1).argmin())
    channels = np.arange(len(values))
    return Compensated(
        *_split(every[best, channels], terms),
        int(outside[best, channels].sum()),
        tried[best, channels],
        error[best, channels],
        error[0],
        int((best == 0).sum()),
        undetermined,
    )


def _current_moments(moments: InputMoments, part: int, terms: Sequence[ErrorTerm]) -> Tensor:
    """Mean G of one part of the channels, in units of the currents of the integer weights."""
    units = torch.from_numpy(_units(terms))
    return moments.gram[part] / moments.rows * torch.outer(units, units)


def _targets(terms: Sequence[ErrorTerm], bias: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Values to round, (C, K + 1): all synapses side by side, the bias last."""
    columns = [t.weight[:] / 2.0**t.weight_exponent for t in terms]
    stacked = np.concatenate([*columns, np.asarray(bias, np.float64)[:, None]], axis=1)
    return np.ascontiguousarray(stacked * np.asarray(threshold, np.float64)[:, None])


def _units(terms: Sequence[ErrorTerm]) -> np.ndarray:
    """Current of one integer unit of each column, (K + 1,)."""
    units = [np.full(t.weight.shape[1], 2.0**t.weight_exponent) for t in terms]
    return np.concatenate([*units, np.ones(1)])


def _ranges(terms: Sequence[ErrorTerm], limits: TargetLimits) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest integer of each column, (K + 1,) each."""
    low = [np.full(t.weight.shape[1], float(t.held.low)) for t in terms]
    high = [np.full(t.weight.shape[1], float(t.held.high)) for t in terms]
    most = np.array([float(limits.bias_max)])
    return np.concatenate([*low, -most]), np.concatenate([*high, most])


def _nearest(
    target: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rounded = np.rint(target)
    values = np.clip(rounded, low, high)
    return values, (values != rounded).sum(axis=1)


def _split(
    values: np.ndarray, terms: Sequence[ErrorTerm]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    edges = np.cumsum([t.weight.shape[1] for t in terms])
    parts = np.split(values.astype(np.int64), edges, axis=1)
    return tuple(parts[:-1]), parts[-1][:, 0]


def _output_error(difference: np.ndarray, gram: Tensor) -> np.ndarray:
    """`d G d^T` per channel, (C,)."""
    d = torch.from_numpy(difference)
    result: np.ndarray = ((d @ gram) * d).sum(1).clamp(min=0.0).numpy()
    return result


def _compensated(
    target: np.ndarray, gram: Tensor, low: np.ndarray, high: np.ndarray, damping: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Integers (C, K + 1), how many per channel were clamped, and whether G is rank-deficient."""
    moment = gram.diagonal()
    live = moment > 0
    # The most active inputs come first, while most others can still compensate for them (the
    # official code's "act-order"); the bias, which has bits to spare, last.
    ranking = moment.clone()
    ranking[-1] = -1.0
    order = torch.argsort(ranking, descending=True, stable=True)
    size = torch.where(live, moment, 1.0).sqrt()
    correlation = gram / torch.outer(size, size)
    correlation = torch.where(torch.outer(live, live), correlation, torch.eye(len(moment)).double())
    correlation = correlation[order][:, order]
    pivots, failed = torch.linalg.cholesky_ex(correlation)
    undetermined = bool(failed) or float(pivots.diagonal().min()) < DETERMINED
    damped = correlation + damping * torch.eye(len(moment), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper = torch.linalg.cholesky(inverse, upper=True)
    # Back to integer units: scaling a column by `size` scales row and column of H.
    upper = upper / size[order][None, :]
    columns = torch.from_numpy(target)[:, order].T.clone()
    bounds = torch.from_numpy(np.stack([low, high]))[:, order]
    rounded, outside = _column_by_column(columns, upper, bounds)
    values = torch.empty_like(rounded)
    values[order] = rounded
    return np.ascontiguousarray(values.T.numpy()), outside.numpy(), undetermined


def _column_by_column(columns: Tensor, upper: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """GPTQ's loop over `columns`, (K + 1, C), which it overwrites; integers, and counts (C,)."""
    count = len(columns)
    rounded = torch.empty_like(columns)
    outside = torch.zeros(columns.shape[1], dtype=torch.int64)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        errors = torch.empty(stop - start, columns.shape[1], dtype=torch.float64)
        for i in range(start, stop):
            nearest = columns[i].round()
            rounded[i] = nearest.clamp(float(bounds[0, i]), float(bounds[1, i]))
            outside += rounded[i] != nearest
            errors[i - start] = (columns[i] - rounded[i]) / upper[i, i]
            columns[i + 1 : stop] -= torch.outer(upper[i, i + 1 : stop], errors[i - start])
        columns[stop:] -= upper[start:stop, stop:].T @ errors
    return rounded, outside
