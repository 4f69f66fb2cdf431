"""LIPool, a max pool over spikes: it sends the change of its window's largest spike count.

One step, in this order (`counts(0) = 0`, `m(0) = 0`; `I` holds a window's spikes one by one):

    counts += I
    m_new = max of counts over the window
    s = m_new - m;  m = m_new

So after every step the net count it has sent is the largest net count of its window: exactly the
max pool of the counts. Spikes are in {0, 1} after IF, in {-1, 0, 1} after CIF, and 0 or more after
graded IF. Counts are never negative, so padding, which counts 0, never wins over a real element:
the same as torch's padding with minus infinity. Source: Li et al. (CASC), docs/METHODS.md
"Layers in both".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.neurons.base import CountGrowth, Neuron, PerChannel, Step, check_no_bias
from toolchain.program.state_interval import Currents
from toolchain.program.synapse import Synapse

if TYPE_CHECKING:
    from toolchain.program.population import Population
    from toolchain.program.well_formed import Senders


class PoolState(NamedTuple):
    """Net spike counts per window element, (N, ..., K), and their largest, (N, ...).

    `counts` is the number 0 before step 1.
    """

    counts: Any
    maximum: Any


@dataclass(frozen=True)
class LIPool(Neuron):
    """A max-pool population; it has no parameters. See the module for the equation."""

    kind: ClassVar[str] = "LIPOOL"
    watched: ClassVar[str] = "spike count"

    def check(self, population: Population, senders: Senders) -> None:
        """Raise ProgramError unless there is one source, which counts its spikes, and no bias."""
        check_no_bias(population)
        if len(population.synapses) != 1:
            raise ProgramError(
                "a LIPool pools one layer",
                node=population.name,
                found=", ".join(s.source for s in population.synapses),
            )
        (synapse,) = population.synapses
        if synapse.source not in senders.counting:
            spikes = senders.ranges[synapse.source]
            raise ProgramError(
                "a LIPool compares net counts, which must not become negative",
                node=population.name,
                found=f"{synapse.source}, which sends {spikes}",
                allowed="a layer of IF, graded IF, CIF or LIPool",
                remedy="put a quantized activation between them, or pool by an average",
            )

    def begin(self, zeros: Any, per_channel: PerChannel) -> PoolState:
        """State before local step 1: all counts are 0."""
        return PoolState(0, zeros)

    @staticmethod
    def step(state: PoolState, window_spikes: Any) -> tuple[PoolState, Any]:
        """One step for spikes (N, ..., K). Returns the state and the spikes sent, (N, ...)."""
        counts = state.counts + window_spikes
        largest = counts[..., 0]
        for position in range(1, counts.shape[-1]):
            count = counts[..., position]
            largest = largest + (count - largest) * (count > largest)
        return PoolState(counts, largest), largest - state.maximum

    def advance(self, state: PoolState, current: Any, awake: bool, per_channel: PerChannel) -> Step:
        """Compute `step`; the potential is the largest count."""
        state, spikes = self.step(state, current)
        return Step(state, state.maximum, spikes, state.counts)

    def spikes_sent(
        self,
        synapses: tuple[Synapse, ...],
        ranges: Mapping[str, IntRange],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> IntRange:
        """The range of its source: the largest of several counts changes no faster than they do."""
        return ranges[synapses[0].source]

    def count_growth(
        self,
        synapses: tuple[Synapse, ...],
        growths: Mapping[str, CountGrowth],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> CountGrowth:
        """The bounds of its source: its count is one of the counts of its window."""
        return growths[synapses[0].source]

    def state_interval(self, currents: Currents) -> np.ndarray:
        """Interval of the summed current, since each window element counts one source's spikes."""
        return currents.count_interval()

    def settled(self, total: Any, wake_steps: int, per_channel: PerChannel) -> Any:
        """The largest count of each window of `total`, (N, ..., K)."""
        return self.step(PoolState(0, 0), total)[1]

    def unsettled(self, potential: np.ndarray, counts: np.ndarray, wake_steps: int) -> int:
        """Always 0: a LIPool sends spikes only in response to spikes."""
        return 0
