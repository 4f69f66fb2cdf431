"""IF neurons with reset by subtraction and one threshold per channel.

Contract, at each local step of a sample (before the first: `v = v0`):

    v += a_in + (bias if awake);  s = [v >= threshold];  v -= threshold * s
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.spiking_population import SpikingPopulation, SpikingPopulationModel


class IntegrateAndFireProcess(SpikingPopulation):
    """IF population; sends unary spikes."""


@implements(proc=IntegrateAndFireProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyIntegrateAndFireFixed(SpikingPopulationModel):
    """CPU model of `IntegrateAndFireProcess`, reset by subtraction."""

    def fire(self, spikes: np.ndarray, local_step: int) -> None:
        """Write spikes in {0, 1} into `spikes` and reduce `v` by them."""
        spikes[self.v >= self.threshold] = 1
