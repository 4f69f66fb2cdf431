"""Input and result of the choice of a population's integers.

`FloatRows` contains the float weights of its branches (one per synapse), `Scales` the chosen
thresholds and exponents, `IntegerRows` the integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toolchain.conversion.quantization.row_blocks import Rows


@dataclass(frozen=True, eq=False)
class Branch:
    """Float weights of one synapse.

    Attributes
    ----------
    name:
        Name in messages.
    rows:
        float64 (C, n): real weights times the value of one input spike.
    largest_spike:
        Largest magnitude of a source spike: 1, or more for graded spikes.
    identity:
        Whether it passes on its source unchanged.
    taps:
        Number of spikes that a graded spike sums (the window of a sum pool).
    constant:
        Whether the spikes are the same for any input: a plane at the border (`passes/border`).
    """

    name: str
    rows: Rows
    largest_spike: int = 1
    identity: bool = False
    taps: int = 1
    constant: bool = False

    @property
    def second_moment(self) -> float:
        """Largest sum of squares of the spikes that one input sums."""
        return self.taps * (self.largest_spike / self.taps) ** 2

    @cached_property
    def uniform(self) -> bool:
        """Whether all weights of an output channel are equal or zero."""
        magnitude = np.abs(self.rows[:])
        return bool(((magnitude == 0) | (magnitude == magnitude.max(axis=1, keepdims=True))).all())


@dataclass(frozen=True, eq=False)
class FloatRows:
    """The data from which a population's integers are chosen.

    Attributes
    ----------
    name:
        Name of the population, for messages.
    branches:
        One per synapse, each (C, n).
    bias:
        float64 (C,).
    lam:
        Float thresholds, (C,), > 0; None for a readout, whose channels share one scale.
    room:
        Factors in (0, 1] on the thresholds, (C,) or (1,), from the range analysis.
    """

    name: str
    branches: tuple[Branch, ...]
    bias: np.ndarray
    lam: np.ndarray | None
    room: np.ndarray


@dataclass(frozen=True, eq=False)
class IntegerBranch:
    """Integer weights of one branch: one synapse, or two whose currents add up to it.

    Attributes
    ----------
    parts:
        (weight exponent, int32 or int64 (C, n)) of each synapse.
    """

    parts: tuple[tuple[int, np.ndarray], ...]

    def exponents(self, weight_bits: int) -> tuple[int, int]:
        """Exponents of the synapses, the finer first; a single one is given twice.

        The finer one is raised until any remainder of the coarser one fits its bits.
        """
        exponents = [exponent for exponent, _ in self.parts]
        high = max(exponents)
        return max(min(exponents), high - (weight_bits - 1)), high

    @property
    def total(self) -> np.ndarray:
        """Sum of the parts, exponents included: int64 (C, n)."""
        return self.of_rows(slice(None))

    def of_rows(self, part: slice) -> np.ndarray:
        """`total` for the channels in `part`."""
        wide = ((exponent, weight[part].astype(np.int64)) for exponent, weight in self.parts)
        return np.asarray(sum(weight << exponent for exponent, weight in wide))


@dataclass(frozen=True, eq=False)
class IntegerRows:
    """The chosen integers of a population.

    Attributes
    ----------
    factor:
        float64 (C,): integer weight = factor * real weight; theta / lam, or 1 / scale.
    theta:
        int64 (C,), thresholds; zeros for a readout.
    scale:
        Real value of one unit of a readout; None with an activation.
    branches:
        Integer branches, in the order of the float ones.
    bias:
        float64 (C,), whole numbers.
    clipped:
        Number of integers at the end of their range because their target is beyond it.
    notes:
        Notes for the user about this choice.
    """

    factor: np.ndarray
    theta: np.ndarray
    scale: float | None
    branches: tuple[IntegerBranch, ...]
    bias: np.ndarray
    clipped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Scales:
    """Thresholds and exponents within which a population's integers are chosen.

    Attributes
    ----------
    theta, scale:
        As in `IntegerRows`.
    exponents:
        Two per branch, as `IntegerBranch.exponents` returns them.
    """

    theta: np.ndarray
    scale: float | None
    exponents: tuple[tuple[int, int], ...]
