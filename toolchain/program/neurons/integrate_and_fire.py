"""IF neuron with reset by subtraction.

One step, in this order (`v(0) = initial_potential`):

    v += I
    s  = [v >= threshold]
    v -= threshold * s

Source: Bu et al., ICLR 2022 (QCFS), and Huang et al., IEEE TNNLS 2025 (NQ), section on the
converted network; both start at half the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from toolchain.int_range import IntRange
from toolchain.program.neurons.thresholds import ThresholdParameters


class IntegrateAndFireState(NamedTuple):
    """Membrane potential, shape (N, ...)."""

    membrane_potential: Any


@dataclass(frozen=True, eq=False)
class IntegrateAndFire(ThresholdParameters):
    """Parameters of an IF population; see the module for the equation."""

    kind: ClassVar[str] = "IF"
    spike_range: ClassVar[IntRange] = IntRange(0, 1)

    @staticmethod
    def start(membrane_potential: Any, zeros: Any) -> IntegrateAndFireState:
        """State before local step 1; `zeros` has the shape of the state and is not needed."""
        return IntegrateAndFireState(membrane_potential)

    @staticmethod
    def step(
        state: IntegrateAndFireState, current: Any, threshold: Any, awake: bool
    ) -> tuple[IntegrateAndFireState, Any]:
        """One step; arrays broadcast to (N, ...). Returns the state and spikes in {0, 1}."""
        v = state.membrane_potential + current
        spikes = (v >= threshold) * 1
        return IntegrateAndFireState(v - threshold * spikes), spikes
