"""Linear bounds of the net spike count of each layer, in wake steps and in steps.

After t steps, n of them awake, the net count of a layer (the sum of all spikes it has sent) lies
in [n * wake.low + t * step.low, n * wake.high + t * step.high].
"""

from __future__ import annotations

from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.neurons import CountGrowth, Readout


def count_growths(program: IntProgram) -> dict[str, CountGrowth]:
    """Bounds of the input layer and of every spiking population, by name."""
    growths = {INPUT: CountGrowth(wake=program.input.range)}
    shapes = {INPUT: program.input.shape}
    for population in program.populations:
        if not isinstance(population.neuron, Readout):
            growths[population.name] = population.neuron.count_growth(
                population.synapses, growths, shapes
            )
            shapes[population.name] = population.shape
    return growths
