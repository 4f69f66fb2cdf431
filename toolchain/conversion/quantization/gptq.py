"""GPTQ's rule for channels that read the same inputs, in two forms with the same result.

GPTQ (Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, built on Optimal Brain Quantization, Frantar & Alistarh, NeurIPS 2022)
rounds the weights of a channel in turn, and those not rounded yet compensate the error on
calibration data, so that the layer's output is kept, not its weights. The Hessian of the squared
output error is `H = A^T A + damping D`: a row of A is the input of one output neuron on the
calibration data, and D is the diagonal of `A^T A`. With `H = V V^T`, V upper triangular, and the
errors `d = w - q` of the weights w,

    q_i = round(w_i + sum over k < i of d_k V_ki / V_ii)

The official code has `H^-1 = U^T U` with `U = V^-1`, and changes all w_j, j > i, after each i; the
sums are the same. What the weights before i leave to the i-th adds `V_ii^2` times its square to
`d^T H d`.

With many rows, V is computed as a whole (`_ByMoments`). With fewer rows than inputs, A is smaller
than H, and the work grows with the rows times the inputs, not with the square of the inputs
(`_ByRows`): weights go in blocks. With F the inputs from block B on, R those behind it,
`M_F = damping I + A_F D_F^-1 A_F^T`, and r the error of the output so far (Woodbury's identity),

    w_B <- w_B + D_B^-1 A_B^T M_F^-1 r

and V within the block is that of the Schur complement
`H_BB - H_BR H_RR^-1 H_RB = damping (D_B + A_B^T M_R^-1 A_B)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.quantization.input_moments import InputMoments

BLOCK = 128
"""Columns of a block; GPTQ's block size."""
DETERMINED = 1e-6
"""Smallest pivot, relative to a column's moment, of an input that is independent of others."""


class ColumnRule(ABC):
    """The rule for one matrix of inputs.

    Matrices of weights have a row per input and a column per channel here. The most active inputs
    come first, while most others can still compensate for them (the official code's "act-order");
    the bias, which has bits to spare, comes last. An input without activity is rounded to the
    nearest, and changes nothing.

    Attributes
    ----------
    undetermined:
        Whether fewer inputs are independent than there are active ones.
    order:
        The inputs, (K + 1,), in the order of the rows.
    """

    undetermined: bool

    def __init__(self, moment: Tensor) -> None:
        """`moment` is the mean square of each input, (K + 1,)."""
        ranking = moment.clone()
        ranking[-1] = -1.0
        self.order = torch.argsort(ranking, descending=True, stable=True)
        moment = moment[self.order]
        self.live = moment > 0
        self.size = torch.where(self.live, moment, 1.0).sqrt()

    @abstractmethod
    def round(self, weights: Tensor, low: list[float], high: list[float]) -> tuple[Tensor, Tensor]:
        """Round `weights`, float64 (K + 1, C), to integers from `low` to `high` per row, in place.

        Returns how many were clamped, and the `error` of the result, per channel, (C,).
        """

    @abstractmethod
    def error(self, difference: Tensor) -> Tensor:
        """Mean square of the output for weights `difference`, (K + 1, C), per channel."""


def column_rule(moments: InputMoments, part: int, units: np.ndarray, damping: float) -> ColumnRule:
    """The rule for one part of the channels; `units`, (K + 1,), are factors of the inputs."""
    factors = torch.from_numpy(units)
    moment = moments.mean_squares(part) * factors**2
    if moments.gram is None:
        inputs = moments.inputs(part) * factors / moments.rows**0.5
        return _ByRows(moment, inputs, damping)
    gram = moments.gram[part] / moments.rows * torch.outer(factors, factors)
    return _ByMoments(moment, gram, damping)


class _ByMoments(ColumnRule):
    """From the mean second moments of the inputs, (K + 1, K + 1)."""

    def __init__(self, moment: Tensor, gram: Tensor, damping: float) -> None:
        super().__init__(moment)
        self.gram = gram[self.order][:, self.order]
        identity = torch.eye(len(gram), dtype=torch.float64)
        correlation = self.gram / torch.outer(self.size, self.size)
        correlation = torch.where(torch.outer(self.live, self.live), correlation, identity)
        pivots, failed = torch.linalg.cholesky_ex(correlation)
        self.undetermined = bool(failed) or float(pivots.diagonal().min()) < DETERMINED
        self.damped = torch.where(self.live, damping * self.size**2, 1.0 + damping)[:, None]
        self.root = _upper_root(correlation + damping * identity, self.size)

    def round(self, weights: Tensor, low: list[float], high: list[float]) -> tuple[Tensor, Tensor]:
        exact = weights.clone()
        clamped, loss = _round_rows(weights, exact, self.root, low, high)
        return clamped, (loss - (exact.square_() * self.damped).sum(0)).clamp(min=0.0)

    def error(self, difference: Tensor) -> Tensor:
        return ((self.gram @ difference) * difference).sum(0).clamp(min=0.0)


class _ByRows(ColumnRule):
    """From the inputs themselves, (rows, K + 1), divided by the root of the number of rows."""

    def __init__(self, moment: Tensor, inputs: Tensor, damping: float) -> None:
        super().__init__(moment)
        self.inputs = inputs[:, self.order]
        relative = self.inputs / self.size
        self.undetermined = not _independent(relative[:, self.live])
        self.blocks: list[tuple[slice, Tensor, Tensor]] = []
        behind = damping * torch.eye(len(inputs), dtype=torch.float64)
        for start in reversed(range(0, inputs.shape[1], BLOCK)):
            block = slice(start, min(start + BLOCK, inputs.shape[1]))
            few, size = relative[:, block], self.size[block]
            within = torch.linalg.solve_triangular(torch.linalg.cholesky(behind), few, upper=False)
            schur = damping * (torch.eye(len(size), dtype=torch.float64) + within.T @ within)
            behind = behind + few @ few.T
            spread = torch.cholesky_solve(few, torch.linalg.cholesky(behind))
            self.blocks.append((block, _upper_root(schur, size), (spread / size).T))
        self.blocks.reverse()

    def round(self, weights: Tensor, low: list[float], high: list[float]) -> tuple[Tensor, Tensor]:
        clamped = torch.zeros(weights.shape[1], dtype=torch.int64)
        missing = torch.zeros(len(self.inputs), weights.shape[1], dtype=torch.float64)
        for block, root, spread in self.blocks:
            few = weights[block]
            unchanged, exact = few.clone(), few.addmm_(spread, missing).clone()
            clamped += _round_rows(few, exact, root, low[block], high[block])[0]
            missing.addmm_(self.inputs[:, block], unchanged - few)
        return clamped, missing.square().sum(0)

    def error(self, difference: Tensor) -> Tensor:
        return (self.inputs @ difference).square().sum(0)


def _upper_root(matrix: Tensor, size: Tensor) -> Tensor:
    """V of `S matrix S = V V^T`, where S has `size` on its diagonal."""
    return size[:, None] * torch.linalg.cholesky(matrix.flip(0, 1)).flip(0, 1)


def _independent(inputs: Tensor) -> bool:
    """Whether the columns of `inputs`, (rows, k), are independent."""
    rows, columns = inputs.shape
    if rows < columns:
        return False
    triangle = torch.linalg.qr(inputs, mode="r").R
    return float(triangle.diagonal().abs().min()) >= DETERMINED


def _round_rows(
    weights: Tensor, exact: Tensor, root: Tensor, low: list[float], high: list[float]
) -> tuple[Tensor, Tensor]:
    """The rule for `weights`, (k, C), with V as `root`, (k, k); `exact` is a copy of them.

    The copy becomes the errors. Returns how many were clamped, and `d^T H d`, (C,) each.
    """
    diagonal = root.diagonal()
    shares, added = root / diagonal, diagonal.square().tolist()
    clamped = torch.zeros(weights.shape[1], dtype=torch.int64)
    loss = torch.zeros(weights.shape[1], dtype=torch.float64)

    def work(start: int, stop: int) -> None:
        if stop - start == 1:
            now = weights[start]
            nearest = now.round()
            rounded = nearest.clamp(low[start], high[start])
            clamped.add_(rounded != nearest)
            left = now.sub_(rounded)
            loss.addcmul_(left, left, value=added[start])
            exact[start] -= rounded
            weights[start] = rounded
            return
        half = (start + stop) // 2  # halves of halves fit the cache
        work(start, half)
        weights[half:stop].addmm_(shares[start:half, half:stop].T, exact[start:half])
        work(half, stop)

    work(0, len(weights))
    return clamped, loss
