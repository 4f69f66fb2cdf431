"""The float spiking network against the quantized network it stands for, layer by layer.

Each layer is compared on its own propagated input, as docs/METHODS.md prescribes for NQ's noise:
`gap = a_ann - (lam / T) * sum_t s_t`. All gaps are given in thresholds, gap / lam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from toolchain.accuracy import Z95
from toolchain.conversion.frontend.user_module import in_evaluation
from toolchain.learning.activations import ActivationMode, QuantizedActivation, activation_mode
from toolchain.learning.evaluation.schema import GapOfLayer, box
from toolchain.learning.training.inference import at_each_step, batches, side_by_side
from toolchain.learning.training.noise import observed_outputs, run_spiking
from toolchain.progress import Progress

GAP_EDGES = np.linspace(-1.5, 1.5, 121)
"""Bins of the histograms, in thresholds; gaps lie in [-1, 1]."""


@torch.no_grad()
def spiking_logits(
    model: nn.Module,
    x: Tensor,
    steps: Sequence[int],
    progress: Progress | None = None,
    *,
    per_step: bool = False,
) -> dict[int, np.ndarray]:
    """Outputs (N, K) of the float spiking network, summed over the first T steps, by T.

    IF neurons only look back, so one run of the longest T holds all shorter ones. With `per_step`,
    normalised samples `x` are sequences, (N, steps, ...), otherwise (N, ...).
    """
    longest, sums = max(steps), []
    with in_evaluation(model), activation_mode(model, ActivationMode.SPIKING, longest):
        for batch in batches(x, longest):
            seen = batch[:, :longest] if per_step else batch
            out = side_by_side(model(at_each_step(seen, longest, per_step=per_step)))
            sums.append(out.reshape(longest, len(batch), -1).cumsum(0))
            if progress:
                progress(sum(s.shape[1] for s in sums), len(x))
    total = torch.cat(sums, dim=1).cpu().numpy()
    return {t: total[t - 1] for t in steps}


@dataclass
class LayerGap:
    """Running statistics of one layer's gap.

    Attributes
    ----------
    histogram:
        Counts over `GAP_EDGES`.
    joint:
        Number of neurons by ANN level (0..L) and spike count (0..T).
    image_means:
        Mean gap of each image; images are independent, neurons of one are not.
    relative_errors:
        Of each image: sum |gap| / sum a_ann (images with a silent layer are left out, counted).
    """

    threshold: float
    sigma: float | None
    joint: np.ndarray
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(len(GAP_EDGES) - 1, np.int64))
    image_means: list[np.ndarray] = field(default_factory=list)
    relative_errors: list[np.ndarray] = field(default_factory=list)
    silent: int = 0
    square_sum: float = 0.0
    elements: int = 0

    def add(self, ann: Tensor, rate: Tensor) -> None:
        """Add a batch: activations and rates, (n, ...), both in thresholds."""
        levels, steps = self.joint.shape[0] - 1, self.joint.shape[1] - 1
        gap = (ann - rate).flatten(1).double()
        self.histogram += np.histogram(gap.cpu().numpy(), GAP_EDGES)[0]
        cell = (ann * levels).round().long() * (steps + 1) + (rate * steps).round().long()
        counts = torch.bincount(cell.flatten(), minlength=self.joint.size)
        self.joint += counts.cpu().numpy().reshape(self.joint.shape)
        self.image_means.append(gap.mean(1).cpu().numpy())
        signal = ann.flatten(1).double().sum(1)
        alive = signal > 0
        self.silent += int((~alive).sum())
        error = gap.abs().sum(1)[alive] / signal[alive]
        self.relative_errors.append(error.cpu().numpy())
        self.square_sum += float(gap.square().sum())
        self.elements += gap.numel()

    def describe(self) -> GapOfLayer:
        """The gaps over all images as JSON, in units of the threshold."""
        means = np.concatenate(self.image_means)
        mean = float(means.mean())
        half = Z95 * float(means.std(ddof=1)) / np.sqrt(len(means)) if len(means) > 1 else 0.0
        neurons = self.joint.sum()
        ann, snn = np.meshgrid(*(np.linspace(0, 1, s) for s in self.joint.shape), indexing="ij")
        return {
            "threshold": self.threshold,
            "sigma": self.sigma,
            "mean": mean,
            "mean_low": mean - half,
            "mean_high": mean + half,
            "std": float(np.sqrt(max(self.square_sum / self.elements - mean**2, 0.0))),
            "too_many": float(self.joint[snn > ann + 1e-9].sum() / neurons),
            "too_few": float(self.joint[snn < ann - 1e-9].sum() / neurons),
            "relative_error": box(np.concatenate(self.relative_errors)),
            "silent_images": self.silent,
            "histogram": self.histogram.tolist(),
            "joint": self.joint.tolist(),
        }


@torch.no_grad()
def layer_gaps(
    model: nn.Module,
    x: Tensor,
    num_steps: int,
    progress: Progress | None = None,
    *,
    per_step: bool = False,
) -> dict[str, LayerGap]:
    """Gap of every quantized activation over normalised samples (N, ...), by qualified path.

    With `per_step` they are sequences, (N, T, ...), and the quantized network gets their means.

    Raises
    ------
    DataError
        If sequences do not have `num_steps` steps.
    """
    activations = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedActivation)}
    gaps = {n: _empty(m, num_steps) for n, m in activations.items()}
    done = 0
    with in_evaluation(model):
        for batch in batches(x, num_steps):
            with observed_outputs(model) as ann:
                model(batch.mean(1) if per_step else batch)
            rates, _ = run_spiking(model, batch, num_steps, per_step=per_step)
            for name, activation in activations.items():
                lam = activation.threshold
                gaps[name].add(ann[name] / lam, rates[name] / lam)
            done += len(batch)
            if progress:
                progress(done, len(x))
    return gaps


def _empty(activation: QuantizedActivation, num_steps: int) -> LayerGap:
    lam = activation.threshold.item()
    sigma = getattr(activation, "sigma", None)
    return LayerGap(
        threshold=lam,
        sigma=None if sigma is None else sigma.item() / lam,
        joint=np.zeros((activation.levels + 1, num_steps + 1), np.int64),
    )
