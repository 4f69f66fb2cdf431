"""CIF neurons: consistent integrate-and-fire, which may send negative spikes.

Contract, at each local step of a sample (before the first: `v = v0`, `N = 0`, `n = 0`):

    v += a_in + (bias if awake);  n += 1 if awake
    s = +1 where v >= threshold and N < n;  s = -1 where v < 0 and N > 0;  else 0
    N += s;  v -= threshold * s
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.spiking_population import SpikingPopulation, SpikingPopulationModel


class ConsistentIntegrateAndFireProcess(SpikingPopulation):
    """CIF population; sends graded spikes -1, 0, +1."""

    def __init__(self, *, shape: tuple[int, ...], **parameters: Any) -> None:
        super().__init__(shape=shape, **parameters)
        self.spike_count = Var(shape=shape, init=0)


@implements(proc=ConsistentIntegrateAndFireProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyConsistentIntegrateAndFireFixed(SpikingPopulationModel):
    """CPU model of `ConsistentIntegrateAndFireProcess`, with a net spike count per neuron."""

    spike_count: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def start_sample(self) -> None:
        """Reset potential and spike count before local step 1."""
        super().start_sample()
        self.spike_count[...] = 0

    def fire(self, spikes: np.ndarray, local_step: int) -> None:
        """Write spikes in {-1, 0, 1} into `spikes` and reduce `v` by them."""
        wake_count = min(local_step, self.clock.wake_steps)
        spikes[(self.v >= self.threshold) & (self.spike_count < wake_count)] = 1
        spikes[(self.v < 0) & (self.spike_count > 0)] = -1
        self.spike_count += spikes
