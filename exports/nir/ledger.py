"""Properties of a program that NIR cannot express, and their treatment.

NIR 1.0 describes neurons by differential equations: an `IF` fires if `v > v_threshold` and is then
*set* to `v_reset`. NIR has no node with reset by subtraction, so a program of several steps is
another network for any tool that follows NIR's definition. With one step the reset has no effect,
and the network is the same. Thresholds are written as theta - 1/2, which for integers makes "above"
the same as "at least theta".

Everything that other tools cannot read is in the graph's metadata under "spikeport", as JSON, from
which `read_nir` restores the program, integer by integer.
"""

from __future__ import annotations

import numpy as np

from exports.entry import Entry, Fate
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
)


def ledger(program: IntProgram) -> list[Entry]:
    """All entries of a program, in its order.

    Raises
    ------
    TargetError
        If a population has neurons without any similar NIR node.
    """
    one_step = program.schedule.num_steps == 1
    entries = []
    for population in program.populations:
        neuron, name = population.neuron, population.name
        if isinstance(neuron, ConsistentIntegrateAndFire | GradedIntegrateAndFire | LIPool):
            raise TargetError(
                "NIR has no neuron that takes spikes back, sends several as one, or pools them",
                node=name,
                found=neuron.kind,
                allowed="IF neurons, sum pools, a readout",
                remedy="train with average pools in place of max pools"
                if isinstance(neuron, LIPool)
                else 'convert with neuron="if" and max_spike=1',
            )
        if isinstance(neuron, Readout):
            consequence = f"real output = {neuron.scale:.6g} * sum over steps / {_wake(program)}"
            entries.append(Entry("accumulating readout", name, Fate.METADATA, consequence))
        if not isinstance(neuron, IntegrateAndFire):
            continue
        if one_step:
            entries += [
                Entry("initial potential", name, Fate.FOLDED, "added to the bias of the one step"),
                Entry(
                    "one spike at most in a step",
                    name,
                    Fate.METADATA,
                    "sinabs sends as many as the threshold goes into v",
                ),
            ]
            continue
        if np.any(neuron.initial_potential):
            entries.append(
                Entry("initial potential", name, Fate.METADATA, "v starts at 0 elsewhere")
            )
        consequence = (
            "elsewhere a spike sets v to 0, and what lay above the threshold is lost "
            "(SpikingJelly), or several spikes are sent in a step (sinabs)"
        )
        entries.append(Entry("reset by subtraction", name, Fate.METADATA, consequence))
    quantizer = program.input
    given = "one tensor for each step" if quantizer.per_step else "given at every step"
    entries.append(
        Entry(
            "input quantizer",
            "input",
            Fate.METADATA,
            f"inputs are integers, one unit is {quantizer.scale:.6g}; {given}",
        )
    )
    entries.append(
        Entry(
            "integer types",
            "everywhere",
            Fate.METADATA,
            f"weights of {program.weight_bits} bits and states of {program.state_bits} bits are "
            "float32 elsewhere, which holds these integers exactly",
        )
    )
    return entries


def resets_differ(program: IntProgram) -> bool:
    """Whether a tool that resets to zero gives other spikes."""
    spiking = any(isinstance(p.neuron, IntegrateAndFire) for p in program.populations)
    return spiking and program.schedule.num_steps > 1


def _wake(program: IntProgram) -> int:
    return program.schedule.wake_steps
