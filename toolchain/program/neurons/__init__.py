"""Neurons: parameters, one pure step, and the properties that follow from it; one file per neuron.

`NEURONS` maps the kind written into files to the class; a new neuron is one file and one line.
The rules use only arithmetic and comparison operators, so they work on NumPy arrays and torch
tensors, and importing them loads no simulator.
"""

from toolchain.program.neurons.base import CountGrowth, Neuron
from toolchain.program.neurons.consistent_integrate_and_fire import ConsistentIntegrateAndFire
from toolchain.program.neurons.graded_integrate_and_fire import GradedIntegrateAndFire
from toolchain.program.neurons.integrate_and_fire import IntegrateAndFire
from toolchain.program.neurons.lipool import LIPool
from toolchain.program.neurons.readout import Readout
from toolchain.program.neurons.relay import Relay
from toolchain.program.neurons.thresholds import ThresholdNeuron

NEURONS: dict[str, type[Neuron]] = {
    neuron.kind: neuron
    for neuron in (
        IntegrateAndFire,
        ConsistentIntegrateAndFire,
        GradedIntegrateAndFire,
        LIPool,
        Relay,
        Readout,
    )
}

__all__ = [
    "NEURONS",
    "ConsistentIntegrateAndFire",
    "CountGrowth",
    "GradedIntegrateAndFire",
    "IntegrateAndFire",
    "LIPool",
    "Neuron",
    "Readout",
    "Relay",
    "ThresholdNeuron",
]
