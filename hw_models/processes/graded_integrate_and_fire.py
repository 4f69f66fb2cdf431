"""Graded IF neurons: IF with reset by subtraction that sends several spikes of a step as one.

Contract, at each local step of a sample (before the first: `v = v0`):

    v += a_in + (bias if awake)
    s = the largest integer of 0 .. max_spike with s * threshold <= v, 0 if v < 0
    v -= threshold * s
"""

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from hw_models.spiking_population import SpikingPopulation, SpikingPopulationModel


class GradedIntegrateAndFireProcess(SpikingPopulation):
    """Graded IF population; sends graded spikes 0 .. `max_spike`."""

    def __init__(self, *, shape: tuple[int, ...], max_spike: int, **parameters: Any) -> None:
        super().__init__(shape=shape, max_spike=max_spike, **parameters)


@implements(proc=GradedIntegrateAndFireProcess, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyGradedIntegrateAndFireFixed(SpikingPopulationModel):
    """CPU model of `GradedIntegrateAndFireProcess`, reset by subtraction."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.max_spike: int = proc_params["max_spike"]

    def fire(self, spikes: np.ndarray, local_step: int) -> None:
        """Write spikes in 0 .. max_spike into `spikes`, one for each threshold that v holds."""
        for most in range(1, self.max_spike + 1):
            spikes += self.v >= most * self.threshold.astype(np.int64)
