"""Relay: a stateless population that passes its summed current on as a graded spike.

One step: `s = I`. It has no bias, no threshold and no memory; recordings keep its membrane
potential as 0. With depthwise kernels of ones it is an explicit sum pool, for places where the
pool cannot be folded into the layers that follow it. Source: docs/METHODS.md,
"Layers in both" (average pools stay linear).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from toolchain.errors import UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.neurons.base import CountGrowth, Neuron, PerChannel, Step, check_no_bias
from toolchain.program.spike_ranges import sums_by_place, weighted
from toolchain.program.state_interval import Currents
from toolchain.program.synapse import Synapse

if TYPE_CHECKING:
    from toolchain.program.population import Population
    from toolchain.program.well_formed import Senders


@dataclass(frozen=True)
class Relay(Neuron):
    """A relaying population; it has no parameters. See the module for the equation."""

    kind: ClassVar[str] = "RELAY"
    watched: ClassVar[str] = "graded spike"
    graded: ClassVar[bool] = True
    spike_limits: ClassVar[IntRange] = IntRange.signed(8)
    """Range of the spikes: recordings store spikes as int8."""

    def watch_limits(self, state: IntRange) -> IntRange:
        """The range of a spike."""
        return self.spike_limits

    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless there is no bias and spikes fit 8 bits for any input."""
        check_no_bias(population)
        spikes = self.spikes_sent(population.synapses, senders.ranges, senders.shapes)
        for limits, what in ((self.spike_limits, "8 bits"), (senders.state, "the state range")):
            if not limits.contains(spikes.low, spikes.high):
                raise UnprovedRangeError(
                    f"the spikes this relay passes on may not fit {what}",
                    node=population.name,
                    found=f"{spikes} in the worst case",
                    allowed=str(limits),
                    remedy="fold the pool into the layer that follows it instead",
                )

    def begin(self, zeros: Any, per_channel: PerChannel) -> Any:
        """State before local step 1: the potential is always 0."""
        return zeros

    def advance(self, state: Any, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """Send the current as the spike."""
        return Step(state, state, current, current)

    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """The range of the current of one step, over all places."""
        low, high = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for synapse in synapses:
            sums = sums_by_place(synapse, shapes[synapse.source])
            below, above = weighted(*sums, ranges[synapse.source])
            low, high = low + below, high + above
        return IntRange(int(low.min()), int(high.max()))

    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """The bounds of the summed current."""
        return CountGrowth(
            self.spikes_sent(synapses, {name: g.wake for name, g in growths.items()}, shapes),
            self.spikes_sent(synapses, {name: g.step for name, g in growths.items()}, shapes),
        )

    def state_interval(self, currents: Currents) -> np.ndarray:
        """Interval 0 .. 0: a relay has no state."""
        return np.zeros_like(currents.now)

    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """The summed current itself, (N, ...): a relay sends what it receives."""
        return total

    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Always 0: a relay sends spikes only in response to spikes."""
        return 0
