"""Scoring of outputs: their correctness, and the agreement of two networks.

Outputs are (n, P): logits of a classifier, or all values of all outputs side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from toolchain.accuracy import Accuracy
from toolchain.program.int_program import IntProgram
from toolchain.program.neurons import Readout


class Scorer(Protocol):
    """Scores outputs for the first n samples of the data.

    Attributes
    ----------
    score:
        Name of the score that `describe` returns under "accuracy".
    has_ground_truth:
        Whether the correct outputs are known.
    """

    @property
    def score(self) -> str:
        """Name of the score in `describe`, such as "accuracy"."""

    @property
    def has_ground_truth(self) -> bool:
        """Whether the correct outputs are known."""

    def describe(self, outputs: np.ndarray) -> dict[str, Any]:
        """Score as JSON: "accuracy" 0 .. 1, "low" and "high" or None, "total"; needs a truth."""

    def same(self, first: np.ndarray, second: np.ndarray) -> int:
        """Number of samples for which two versions give the same prediction."""


@dataclass(frozen=True)
class Classifier:
    """The prediction is the largest output; `labels` are (N,), or None if unknown."""

    labels: np.ndarray | None
    score: str = "accuracy"

    @property
    def has_ground_truth(self) -> bool:
        """Whether the labels are known."""
        return self.labels is not None

    def describe(self, outputs: np.ndarray) -> dict[str, Any]:
        """Number of correct predictions with their 95 % interval."""
        assert self.labels is not None
        return dict(Accuracy.of(outputs, self.labels[: len(outputs)]).describe())

    def same(self, first: np.ndarray, second: np.ndarray) -> int:
        """Number of rows whose largest output is at the same place, for two arrays (n, K)."""
        return int((first.argmax(1) == second.argmax(1)).sum())


@dataclass(frozen=True)
class AnyOutputs:
    """Scorer of a network that is neither classifier nor detector: outputs are equal or not."""

    score: str = "equal outputs"
    has_ground_truth: bool = False

    def describe(self, outputs: np.ndarray) -> dict[str, Any]:
        """Raise an error: the correct outputs are unknown."""
        raise TypeError("nothing is known of the right outputs")

    def same(self, first: np.ndarray, second: np.ndarray) -> int:
        """Number of samples whose values are all equal."""
        return int((first == second).all(1).sum())


def flat(program: IntProgram, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Arrays (..., n, *shape) by readout, joined into one, (..., n, P), in the program's order."""
    parts = []
    for population in program.readouts:
        array = outputs[population.name]
        axes = array.ndim - len(population.shape)
        parts.append(array.reshape(*array.shape[:axes], prod(population.shape)))
    return np.concatenate(parts, axis=-1)


def answers(program: IntProgram, accumulators: np.ndarray, steps: int) -> np.ndarray:
    """Outputs (n, P) for accumulators (n, P) after `steps` steps.

    Logits of a classifier stay integers; other outputs become real values per wake step.
    """
    readouts = program.readouts
    if len(readouts) == 1 and len(readouts[0].shape) == 1:
        return accumulators
    units = []
    for population in readouts:
        assert isinstance(population.neuron, Readout)
        units.append(np.full(prod(population.shape), population.neuron.scale))
    wake = min(steps, program.schedule.wake_steps)
    real: np.ndarray = accumulators * (np.concatenate(units) / wake)
    return real
