"""The declared types of what an evaluation's JSON holds; the dictionaries stay dictionaries."""

from __future__ import annotations

import shlex
from typing import Any, TypedDict

import numpy as np


class Run(TypedDict):
    """The checkpoint that was measured."""

    config: dict[str, Any]
    epoch: int
    checkpoint_sha256: str
    history: list[dict[str, int | float]]


MadeBy = dict[str, Any]
"""How it was measured: `_MADE`, and versions by package."""
_MADE = {"command", "seconds", "spikeport", "python", "processor", "cores"}


def check_made(made: MadeBy) -> None:
    """Raise ValueError if a part of how it was measured is missing."""
    if not made.keys() >= _MADE:
        raise ValueError(f"made_by has no {', '.join(sorted(_MADE - made.keys()))}")
    if not isinstance(made["command"], str) or not isinstance(made["seconds"], int | float):
        raise ValueError("made_by needs a command and a number of seconds")
    shlex.split(made["command"])


class Quantiles(TypedDict):
    """Of a relative error, over images."""

    low: float
    q1: float
    median: float
    q3: float
    high: float
    mean: float


def box(values: np.ndarray) -> Quantiles | None:
    """What a box plot shows: 5, 25, 50, 75 and 95 % quantiles and the mean; None if empty."""
    if values.size == 0:
        return None
    low, q1, median, q3, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    return {
        "low": float(low),
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
        "high": float(high),
        "mean": float(values.mean()),
    }


class GapOfLayer(TypedDict):
    """Gap of activation and spike rate in a layer, in thresholds (`float_network.LayerGap`)."""

    threshold: float
    sigma: float | None
    mean: float
    mean_low: float
    mean_high: float
    std: float
    too_many: float
    too_few: float
    relative_error: Quantiles | None
    silent_images: int
    histogram: list[int]
    joint: list[list[int]]


class Gaps(TypedDict):
    """Residual errors of all layers over `steps`."""

    steps: int
    layers: dict[str, GapOfLayer]


class CountsOfLayer(TypedDict):
    """Errors of a layer's spike counts (`int_network.CountError`)."""

    neurons: int
    too_many: float
    too_few: float
    wrong: int
    silent_images: int
    relative_error: Quantiles | None


class Variant(TypedDict):
    """One kind of neuron against the quantized network."""

    sleep_steps: int
    unequal_images: int
    layers: dict[str, CountsOfLayer]


class Counts(TypedDict):
    """Spike counts of CIF networks against the quantized network."""

    arithmetic: str
    wake_steps: int
    settle_steps: int
    samples: int
    variants: dict[str, Variant]


class LavaRun(TypedDict):
    """A run on Lava, compared with the reference simulator's."""

    samples: int
    steps: int
    weight_bits: int
    mismatches: int
    program_hash: str


class OnLava(LavaRun):
    """A classifier on Lava: all recorded values are compared."""

    values: int
    accuracy: float | None


class DetectorOnLava(LavaRun):
    """A detector on Lava: the digests per layer and step are compared."""

    compared: int


class LayerOperations(TypedDict):
    """Of one layer, per sample."""

    name: str
    events: float
    synops: float
    synops_by_magnitude: float


class CostOf(TypedDict):
    """What an operation costs, and who says so."""

    picojoules: float
    source: str


class Estimate(TypedDict):
    """Energy from a table of costs."""

    note: str
    nanojoules: dict[str, float]
    costs: dict[str, CostOf]


class OperationsFound(TypedDict):
    """Operations per sample, as `audit.energy.Operations.describe` returns them."""

    layers: list[LayerOperations]
    synops: float
    synops_by_magnitude: float
    neuron_updates: int
    ann_macs: int
    estimate: Estimate


class OverTime(TypedDict):
    """A spiking network on sequences, step by step (`over_time.SequenceRun`).

    Attributes
    ----------
    correct:
        Samples that are right after each step, as accuracies count them.
    first_right:
        Samples by the step after which the label's output is larger than all others for the first
        time; samples of which it never is are in none.
    right_for_good:
        By the step from which on it stays so to the end.
    camera_events:
        Of a sample, on average; None of samples that are no counts of events.
    operations:
        Per sample.
    """

    arithmetic: str
    neuron: str
    wake_steps: int
    samples: int
    correct: list[int]
    first_right: list[int]
    right_for_good: list[int]
    camera_events: float | None
    operations: OperationsFound
