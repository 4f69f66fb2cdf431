"""Comparison of a program's numbers with the registers of a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolchain.int_range import IntRange, TargetLimits
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import WindowSynapse


@dataclass(frozen=True)
class Beyond:
    """Values that a target cannot hold.

    Attributes
    ----------
    node:
        The population, or "input"; "program" for values common to all.
    limit:
        Name of the field of `TargetLimits`.
    what:
        Name of the values in words.
    """

    node: str
    limit: str
    what: str
    found: IntRange
    allowed: IntRange


def beyond_target(program: IntProgram, limits: TargetLimits) -> list[Beyond]:
    """All values outside the target's limits, in the program's order; empty if all fit."""
    return [found for found in _numbers(program, limits) if not _held(found)]


def _held(found: Beyond) -> bool:
    return found.allowed.contains(found.found.low, found.found.high)


def _numbers(program: IntProgram, limits: TargetLimits) -> Iterator[Beyond]:
    state, bits = program.state_bits, program.input.bits
    states = IntRange(1, limits.state_bits)
    yield Beyond("program", "state_bits", "state bits", IntRange(state, state), states)
    most = IntRange(1, limits.max_input_bits)
    yield Beyond(INPUT, "max_input_bits", "input bits", IntRange(bits, bits), most)
    for population in program.populations:
        yield from _of_population(population, limits)


def _of_population(population: Population, limits: TargetLimits) -> Iterator[Beyond]:
    name = population.name
    for synapse in population.synapses:
        if isinstance(synapse, WindowSynapse):
            continue
        weights = IntRange(int(synapse.weight.min()), int(synapse.weight.max()))
        held = IntRange.signed(limits.weight_bits)
        yield Beyond(name, "weight_bits", "weights", weights, held)
        exponent = IntRange(synapse.weight_exponent, synapse.weight_exponent)
        held = IntRange(0, limits.max_weight_exponent)
        yield Beyond(name, "max_weight_exponent", "weight exponent", exponent, held)
    bias = IntRange(int(population.bias.min()), int(population.bias.max()))
    held = IntRange(-limits.bias_max, limits.bias_max)
    yield Beyond(name, "bias_max", "bias", bias, held)
    threshold = getattr(population.neuron, "threshold", None)
    if threshold is not None:
        found = IntRange(int(threshold.min()), int(threshold.max()))
        held = IntRange(1, limits.threshold_max)
        yield Beyond(name, "threshold_max", "thresholds", found, held)
        most = getattr(population.neuron, "max_spike", 1)
        held = IntRange.unsigned(limits.max_spike_bits)
        yield Beyond(name, "max_spike_bits", "spikes", IntRange(0, most), held)
        if limits.one_threshold:
            held = IntRange(found.low, found.low)
            yield Beyond(name, "thresholds", "thresholds of channels", found, held)
