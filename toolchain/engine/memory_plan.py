"""Number of samples and steps that the engine processes at once, for speed and within memory."""

from __future__ import annotations

from math import prod

from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import ConvSynapse, Synapse, WindowSynapse

SPIKES = 64 << 20
"""Spikes of the largest layer in a pass, in bytes: enough samples for small layers."""
LARGEST_PASS = 512
"""Most samples per pass."""
INTEGER = 8
"""Largest size of a potential in bytes; most programs need 4."""


def samples_and_steps(
    program: IntProgram, block: int | None, *, memory: int | None = None, traced: bool = False
) -> tuple[int, int]:
    """Number of samples of a pass, and of steps of a block.

    Parameters
    ----------
    block:
        Most steps of a block; None for the wake steps, of which inputs per step may have many: then
        no more than leave one sample's spikes at `SPIKES`.
    memory:
        Bytes for weights, spikes, currents and states.
    traced:
        Whether the potential of every step is requested.

    Raises
    ------
    TargetError
        If a single sample and step do not fit.
    """
    largest = max(prod(p.shape) for p in program.populations)
    usual = program.schedule.wake_steps
    if program.input.per_step:
        largest = max(largest, prod(program.input.shape))
        usual = min(usual, max(1, SPIKES // largest))
    block = min(block or usual, program.schedule.num_steps)
    samples = max(1, min(LARGEST_PASS, SPIKES // (largest * block)))
    if memory is None:
        return samples, block
    left = memory - _weights(program)
    for steps in (block, *(s for s in (8, 4, 2, 1) if s < block)):
        fit = left // _of_sample(program, steps, traced=traced)
        if fit >= 1:
            return min(samples, fit), steps
    needed = _weights(program) + _of_sample(program, 1, traced=traced)
    raise TargetError(
        "one sample needs more memory than it is given",
        node=program.name,
        found=f"{memory:,} bytes",
        allowed=f">= {needed:,} bytes",
        remedy="give more with memory=",
    )


def _weights(program: IntProgram) -> int:
    """Bytes of the weights: in the program, as packed for products, and as words for events."""
    count = sum(
        s.weight.size
        for p in program.populations
        for s in p.synapses
        if not isinstance(s, WindowSynapse)
    )
    return 16 * count


def _of_sample(program: IntProgram, steps: int, *, traced: bool) -> int:
    """Bytes per sample over a block: all states, and the layer that needs most besides them."""
    states = sum(2 * INTEGER * prod(p.shape) for p in program.populations)
    last = {s.source: i for i, p in enumerate(program.populations) for s in p.synapses}
    worst = alive = 0
    sizes = {
        INPUT: prod(program.input.shape),
        **{p.name: prod(p.shape) for p in program.populations},
    }
    held = {INPUT: INTEGER * sizes[INPUT] * (steps if program.input.per_step else 1)}
    for index, population in enumerate(program.populations):
        alive = sum(held.values())
        worst = max(worst, alive + _of_layer(program, population, steps, traced=traced))
        held[population.name] = steps * sizes[population.name]
        held = {name: size for name, size in held.items() if last.get(name, -1) > index}
    return states + worst


def _arriving(synapse: Synapse, source: tuple[int, ...]) -> int:
    """Number of sites of the plane that a synapse takes."""
    return prod(synapse.on_plane(source)[1] if isinstance(synapse, ConvSynapse) else source)


def _of_layer(program: IntProgram, population: Population, steps: int, *, traced: bool) -> int:
    """Bytes of a layer: currents in two layouts and picked out, their sum, spikes, lists, trace."""
    neurons = prod(population.shape)
    arriving = sum(_arriving(s, program.source_shape(s.source)) for s in population.synapses)
    branches = len(population.synapses)
    each = 12 * branches + (INTEGER if branches > 1 else 0) + 2 + (INTEGER + 4 if traced else 0)
    return steps * (each * neurons + 4 * arriving)
