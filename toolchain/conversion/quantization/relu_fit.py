"""Plain ReLU networks: thresholds, initial potentials and weights fitted to the error they cause.

Layer by layer, in the order of the network, the spiking network in float is held against the ReLU
network on calibration samples. An IF network is simulated over its T steps, so that errors of
time (a spike sent too early, a potential left at the end) are seen; a CIF network that settles is
its quantized form. Each layer gets the spikes that the fitted layers before it really send.

- Thresholds and initial potentials: per channel, of the percentiles in `PERCENTILES` of the ReLU's
  outputs and the shifts in `SHIFTS`, the pair with the smallest squared error of the outputs. The
  criterion is that of Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking
  Neural Networks Calibration", ICML 2021 (MMSE threshold, shift of the potential), with simulated
  outputs. Bu et al., "Optimized Potential Initialization for Low-latency Spiking Neural Networks",
  AAAI 2022, show that half a threshold is the best shift where inputs are even; they are not.
- Weights: those of a layer behind spikes are fitted, by least squares, to give with the spikes
  what the trained weights give with the ReLUs' outputs. With s the mean spikes over the steps and
  a the outputs, both centred,

      W' = W + W E[(a - s) s^T] (E[s s^T] + D)^-1,    b' = b + W E[a] - W' E[s]

  where D holds a share of each input's own variance (`RIDGE`). The mean error of each channel goes
  into the bias (the bias correction of Nagel et al., ICCV 2019, and of Li et al.). The idea is that
  of the asymmetric calibration of GPTAQ (Li et al., ICML 2025), before any rounding.

Both only choose numbers of the float network; everything behind is exact in integers as before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.float_values import apply_node
from toolchain.conversion.quantization.input_moments import SEEN, SEEN_PER_INPUT
from toolchain.conversion.quantization.percentile import SMALLEST, dead_relu, plain_relus
from toolchain.program.float_program import (
    Activation,
    Conv2d,
    FloatNode,
    FloatProgram,
    Linear,
    MaxPool2d,
)
from toolchain.simulator.planes import windows

PERCENTILES = (90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 100.0)
"""Candidates for a threshold."""
SHIFTS = (0.35, 0.5, 0.65)
"""Candidates for an initial potential, in thresholds."""
RIDGE, RIDGE_PER_INPUT = 1.0, 4.0
"""Share of an input's own variance that is added where weights are fitted: the first, times 1 plus
the second per input and place that the fit sees. Smaller ones fit the calibration samples
better and others worse: on a CIFAR-10 network at T = 4 with 192 samples, the errors of the outputs
on other samples were 12.8, 11.8 and 10.4 % with (0.3, 0), (1, 0) and (1, 4)."""
MOST_INPUTS = 4608
"""Inputs of one output above which weights stay if the samples have more places than that: 512
channels of 3x3; a system of this size is solved in seconds."""
TRIED = 1 << 12
"""Values of a channel on which candidates are compared."""
Values = dict[str, Tensor]
"""Values per step by node, (T, n, ...), or (1, n, ...) where they are the same in every step."""


@dataclass(frozen=True)
class Timing:
    """How the spiking network runs.

    Attributes
    ----------
    steps:
        Time steps, or wake steps of CIF.
    settled:
        CIF with enough sleep: the counts are those of the quantized activation.
    max_spike:
        Largest graded spike.
    """

    steps: int
    settled: bool
    max_spike: int = 1

    @property
    def levels(self) -> int:
        """Levels of an activation: its largest count over all steps."""
        return self.steps * self.max_spike


@torch.no_grad()
def fit_relus(
    program: FloatProgram, samples: Tensor, timing: Timing, *, weights: bool
) -> FloatProgram:
    """`program` with thresholds and shifts for its plain ReLUs, and fitted weights.

    Parameters
    ----------
    program:
        A folded program whose plain ReLUs have no threshold yet.
    samples:
        Normalised calibration samples per step, (T, n, ...), or (1, n, ...) where they are the same
        in every step; float32 is enough.
    weights:
        Whether weights and biases are fitted too.

    Raises
    ------
    ConversionError
        If a ReLU is dead: all its outputs are 0.
    """
    trained: Values = {program.input.name: _mean(samples)}
    spiking: Values = {program.input.name: samples}
    relus = {n.name for n in plain_relus(program)}
    last_use = _last_use(program)
    nodes: list[FloatNode] = [program.input]
    for node in program.nodes[1:]:
        exact = [trained[s] for s in node.sources]
        sent = [spiking[s] for s in node.sources]
        trained[node.name] = _value(node, exact, node.name in relus)
        fitted = node
        # Values of the input are the same in both: there is nothing to fit.
        if weights and isinstance(node, Conv2d | Linear) and exact[0] is not sent[0]:
            fitted = _fitted_weights(node, exact[0][0], sent[0].mean(0))
        elif isinstance(node, Activation) and node.name in relus:
            fitted = _fitted_threshold(node, exact[0], sent[0], timing)
        same = all(a is b for a, b in zip(exact, sent, strict=True))
        if same and not isinstance(node, Activation):
            spiking[node.name] = trained[node.name]
        else:
            spiking[node.name] = _sent(fitted, sent, timing)
        nodes.append(fitted)
        for name in last_use.get(node.name, ()):
            del trained[name], spiking[name]
    return replace(program, nodes=tuple(nodes))


@torch.no_grad()
def outputs_of(program: FloatProgram, samples: Tensor, timing: Timing | None) -> Tensor:
    """All outputs side by side, (n, k), of the spiking network in float, averaged over its steps.

    `samples` are as in `fit_relus`. Without `timing`, the outputs are those of the trained network,
    where plain ReLUs have no threshold.
    """
    relus = {n.name for n in plain_relus(program)} if timing is None else set()
    values: Values = {program.input.name: _mean(samples) if timing is None else samples}
    last_use = _last_use(program)
    for node in program.nodes[1:]:
        sources = [values[s] for s in node.sources]
        if timing is None:
            values[node.name] = _value(node, sources, node.name in relus)
        else:
            values[node.name] = _sent(node, sources, timing)
        for name in last_use.get(node.name, ()):
            del values[name]
    return torch.cat([values[name].mean(0).flatten(1) for name in program.outputs], dim=1)


def _mean(samples: Tensor) -> Tensor:
    """What a network without time gets of samples (T, n, ...): their mean, (1, n, ...)."""
    return samples if len(samples) == 1 else samples.mean(0, keepdim=True)


def _last_use(program: FloatProgram) -> Mapping[str, list[str]]:
    """Nodes that nothing reads after a node, by the name of that node."""
    last = {source: node.name for node in program.nodes for source in node.sources}
    result: dict[str, list[str]] = {}
    for name, reader in last.items():
        if name not in program.outputs:
            result.setdefault(reader, []).append(name)
    return result


def _value(node: FloatNode, sources: list[Tensor], plain: bool) -> Tensor:
    """The output of a node in the trained network; a `plain` ReLU has no threshold."""
    if plain and isinstance(node, Activation) and node.bound is not None:
        node = replace(node, threshold=np.array([node.bound]))
    return apply_node(node, not plain, *(s[0] for s in sources))[None]


def _sent(node: FloatNode, sources: list[Tensor], timing: Timing) -> Tensor:
    """What a node sends per step, (T, n, ...), for what its sources send."""
    steps = max(len(source) for source in sources)
    if isinstance(node, Activation):
        if timing.settled:
            return apply_node(replace(node, levels=timing.steps), True, sources[0].mean(0))[None]
        lam, shift = (_row(v, sources[0]) for v in (node.threshold, node.shift))
        return _simulated(sources[0], lam / node.max_spike, shift, timing.steps, node.max_spike)
    if isinstance(node, MaxPool2d) and steps > 1:  # the change of the largest count, as LIPool
        largest = _each_step(node, [sources[0].cumsum(0)])
        return torch.cat([largest[:1], largest.diff(dim=0)])
    return _each_step(node, [s.expand(steps, *s.shape[1:]) for s in sources])


def _each_step(node: FloatNode, sources: list[Tensor]) -> Tensor:
    result = apply_node(node, True, *(source.flatten(0, 1) for source in sources))
    return result.reshape(*sources[0].shape[:2], *result.shape[1:])


def _simulated(currents: Tensor, lam: Tensor, shift: Tensor, steps: int, most: int) -> Tensor:
    """Spikes times `lam`, (T, n, ...), of IF neurons that send up to `most` of a step as one.

    `lam` and `shift` broadcast to (n, ...).
    """
    potential = (lam * shift).expand(currents.shape[1:]).clone()
    sent = torch.empty((steps, *currents.shape[1:]), dtype=currents.dtype)
    for step in range(steps):
        potential += currents[step % len(currents)]
        if most == 1:
            torch.mul(potential >= lam, lam, out=sent[step])
        else:
            torch.mul((potential / lam).floor().clamp(0, most), lam, out=sent[step])
        potential -= sent[step]
    return sent


def _fitted_threshold(
    node: Activation, exact: Tensor, currents: Tensor, timing: Timing
) -> Activation:
    """The activation with thresholds and shifts per channel, from pre-activations of both."""
    outputs = exact[0].clamp(min=0, max=min(node.bound or 0.0, float(torch.finfo().max)))
    rows = _by_place(outputs).T
    peaks = exact[0].transpose(0, 1).flatten(1).abs().amax(1).double().numpy()
    if not rows.any():
        raise dead_relu(node.name, f"all outputs of {len(outputs)} samples are 0")
    places = _some(rows.shape[1], TRIED)
    wanted, tried_on = rows.T[places], torch.stack([_by_place(step)[places] for step in currents])
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    result = replace(node, threshold=np.ones(len(rows)), levels=timing.levels)
    for threshold in _candidates(rows, peaks, node.bound or np.inf):
        for shift in SHIFTS:
            tried = replace(result, threshold=threshold, shift=np.full(len(rows), shift))
            sent = _sent(tried, [tried_on], timing).mean(0)
            error = (sent - wanted).square().mean(0).double()
            better = (error < best).numpy()
            best = torch.minimum(error, best)
            result = replace(
                result,
                threshold=np.where(better, threshold, result.threshold),
                shift=np.where(better, shift, result.shift),
            )
    return result


def _candidates(rows: Tensor, peaks: np.ndarray, bound: float) -> Collection[np.ndarray]:
    """Thresholds to try, (C,) each, from the outputs per channel, (C, n)."""
    total = rows.shape[1]
    most = ceil(total * (1 - PERCENTILES[0] / 100)) + 1
    largest = torch.topk(rows, min(most, total)).values.double().numpy()
    result = []
    for percentile in PERCENTILES:
        rank = min(round((total - 1) * (1 - percentile / 100)), largest.shape[1] - 1)
        threshold = np.maximum(largest[:, rank], SMALLEST * peaks)
        # A channel that no sample reaches at all: any threshold will do.
        threshold[threshold == 0] = threshold.max()
        result.append(np.minimum(threshold, bound))
    return result


def _fitted_weights(node: Conv2d | Linear, exact: Tensor, sent: Tensor) -> Conv2d | Linear:
    """The layer with weights for `sent`, (n, ...), in place of `exact`; grouped ones stay."""
    weight = torch.from_numpy(node.weight.reshape(len(node.weight), -1))
    size = weight.shape[1]
    if isinstance(node, Conv2d) and node.groups > 1:
        return node
    few = len(sent) * len(_patches(node, sent[:1])) <= size
    if size > MOST_INPUTS and not few:
        return node
    change, mean_exact, mean_sent = (_change_by_rows if few else _change)(node, exact, sent, weight)
    fitted = weight + change
    bias = torch.from_numpy(np.array(node.bias)) + weight @ mean_exact - fitted @ mean_sent
    return replace(node, weight=fitted.numpy().reshape(node.weight.shape), bias=bias.numpy())


def _change(
    node: Conv2d | Linear, exact: Tensor, sent: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What is added to `weight`, (C, K), and the means of both inputs, (K,)."""
    size = weight.shape[1]
    square, cross = torch.zeros(2, size, size, dtype=torch.float64)
    mean_sent, mean_exact = torch.zeros(2, size, dtype=torch.float64)
    count, per_sample = 0, ceil((SEEN + SEEN_PER_INPUT * size) / len(sent))
    for index in range(0, len(sent), 4):
        s, a = (_patches(node, values[index : index + 4]) for values in (sent, exact))
        places = _some(len(s), per_sample * len(sent[index : index + 4]))
        s, a = s[places], a[places]
        square += (s.T @ s).double()
        cross += ((a - s).T @ s).double()
        mean_sent, mean_exact = mean_sent + s.sum(0).double(), mean_exact + a.sum(0).double()
        count += len(s)
    mean_sent, mean_exact = mean_sent / count, mean_exact / count
    square = square / count - torch.outer(mean_sent, mean_sent)
    cross = cross / count - torch.outer(mean_exact - mean_sent, mean_sent)
    change = torch.linalg.solve(square + torch.diag(_ridge(square.diagonal(), count)), cross.T).T
    return weight @ change, mean_exact, mean_sent


def _change_by_rows(
    node: Conv2d | Linear, exact: Tensor, sent: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_change`, for fewer rows n than inputs K: a system of n equations in place of K.

    With rows S and A of the centred inputs, `(A - S)^T S (S^T S + n D)^-1` is
    `(A - S)^T (S (n D)^-1 S^T + I)^-1 S (n D)^-1`.
    """
    s, a = (_patches(node, values).double() for values in (sent, exact))
    mean_sent, mean_exact = s.mean(0), a.mean(0)
    s, a = s - mean_sent, a - mean_exact
    scaled = s / (len(s) * _ridge(s.square().mean(0), len(s)))
    kernel = s @ scaled.T + torch.eye(len(s), dtype=torch.float64)
    missing = weight @ (a - s).T
    return missing @ torch.linalg.solve(kernel, scaled), mean_exact, mean_sent


def _ridge(variance: Tensor, count: int) -> Tensor:
    """D of the module's docstring, (K,)."""
    own = variance.clamp(min=1e-9 * float(variance.max()) + 1e-12)
    return RIDGE * (1.0 + RIDGE_PER_INPUT * len(variance) / count) * own


def _by_place(values: Tensor) -> Tensor:
    """Channels of each sample and place, (n * places, C), of values (n, C, ...)."""
    return values.flatten(2).transpose(1, 2).flatten(0, 1) if values.ndim > 2 else values


def _some(total: int, most: int) -> Tensor:
    """Indices of at most `most` of `total` values: always the same, of all samples."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:most]


def _patches(node: Conv2d | Linear, values: Tensor) -> Tensor:
    """Inputs of one output each, (places, K), of values (n, ...)."""
    if isinstance(node, Linear):
        return values
    return windows(node, values).transpose(1, 2).flatten(0, 1)


def _row(values: float | np.ndarray, like: Tensor) -> Tensor:
    """Values of channels as (C, 1, ...), for (T, n, C, ...)."""
    tensor = torch.from_numpy(np.atleast_1d(np.array(values, np.float64))).to(like.dtype)
    return tensor.reshape(-1, *([1] * (like.ndim - 3)))
