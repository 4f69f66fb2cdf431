"""Integer types with their ranges: they check and raise, they never clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.errors import ValueRangeError


@dataclass(frozen=True)
class IntRange:
    """All integers from `low` to `high`, both included."""

    low: int
    high: int

    @classmethod
    def signed(cls, bits: int) -> IntRange:
        """The range of two's complement: -2^(bits-1) .. 2^(bits-1) - 1."""
        return cls(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)

    @classmethod
    def unsigned(cls, bits: int) -> IntRange:
        """The range 0 .. 2^bits - 1."""
        return cls(0, (1 << bits) - 1)

    def __str__(self) -> str:
        return f"{self.low} .. {self.high}"

    def contains(self, low: int, high: int) -> bool:
        """Whether the interval [low, high] lies inside this range."""
        return self.low <= low and high <= self.high

    def check(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return `values` unchanged, or raise an error that names the first value outside.

        Raises
        ------
        ValueRangeError
            If `values` is not of an integer dtype or any value lies outside.
        """
        array = np.asarray(values)
        if array.dtype.kind not in "iu":
            raise ValueRangeError("integers are needed", node=name, found=f"dtype {array.dtype}")
        if array.size and not self.contains(array.min(), array.max()):
            bad = (array < self.low) | (array > self.high)
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueRangeError(
                f"{int(bad.sum())} of {array.size} values lie outside the range",
                node=name,
                found=f"{int(array[index])} at index {index}",
                allowed=str(self),
            )
        return array


@dataclass(frozen=True)
class TargetLimits:
    """The ranges of a target's registers, as plain numbers; its profile cites the sources.

    Attributes
    ----------
    weight_bits:
        Signed width of a synaptic weight.
    max_weight_exponent:
        Largest left shift of a synapse's summed current, in bits.
    state_bits:
        Signed width of a membrane potential and of a summed synaptic current.
    threshold_max, bias_max:
        Largest threshold, and largest magnitude of a bias.
    max_input_bits:
        Largest width of a graded input spike, in bits.
    one_threshold:
        Whether all channels of a layer have the same threshold.
    max_spike_bits:
        Largest width of a neuron's spike, unsigned; 1 if spikes carry no number.
    """

    name: str
    weight_bits: int
    max_weight_exponent: int
    state_bits: int
    threshold_max: int
    bias_max: int
    max_input_bits: int
    one_threshold: bool = False
    max_spike_bits: int = 1
