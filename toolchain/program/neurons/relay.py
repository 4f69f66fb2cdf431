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
from toolchain.program.spike_ranges import weight_sums, weighted
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
        spikes = self.spikes_sent(population.synapses, senders.ranges)
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
        self, synapses: tuple[Synapse, ...], ranges: Mapping[str, IntRange]
    ) -> IntRange:
        """The range of the current of one step."""
        lows, highs = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for synapse in synapses:
            below, above = weighted(*weight_sums(synapse), ranges[synapse.source])
            lows, highs = lows + below, highs + above
        return IntRange(int(lows.min()), int(highs.max()))

    def count_growth(
        self, synapses: tuple[Synapse, ...], growths: Mapping[str, CountGrowth]
    ) -> CountGrowth:
        """The bounds of the summed current."""
        wake, step = np.zeros((2, 1), np.int64), np.zeros((2, 1), np.int64)
        for synapse in synapses:
            sums, growth = weight_sums(synapse), growths[synapse.source]
            wake = wake + np.stack(weighted(*sums, growth.wake))
            step = step + np.stack(weighted(*sums, growth.step))
        return CountGrowth(
            IntRange(int(wake[0].min()), int(wake[1].max())),
            IntRange(int(step[0].min()), int(step[1].max())),
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
