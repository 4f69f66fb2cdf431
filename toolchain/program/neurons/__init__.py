"""Neurons as parameters, state and one pure step; one file per neuron.

`NEURONS` maps the kind written into files to the class; a new neuron is one file and one line.
The step functions use only arithmetic and comparison operators, so they take NumPy arrays and
torch tensors alike, and importing them loads neither simulator.
"""

from toolchain.program.neurons.consistent_integrate_and_fire import ConsistentIntegrateAndFire
from toolchain.program.neurons.integrate_and_fire import IntegrateAndFire
from toolchain.program.neurons.lipool import LIPool
from toolchain.program.neurons.readout import Readout
from toolchain.program.neurons.relay import Relay

Neuron = IntegrateAndFire | ConsistentIntegrateAndFire | LIPool | Relay | Readout

NEURONS: dict[str, type[Neuron]] = {
    neuron.kind: neuron
    for neuron in (IntegrateAndFire, ConsistentIntegrateAndFire, LIPool, Relay, Readout)
}

__all__ = [
    "NEURONS",
    "ConsistentIntegrateAndFire",
    "IntegrateAndFire",
    "LIPool",
    "Neuron",
    "Readout",
    "Relay",
]
