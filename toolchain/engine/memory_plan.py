"""How many samples and steps the engine takes at once: what is fast, and what memory allows."""

from __future__ import annotations

from math import prod

from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import WindowSynapse

SPIKES = 64 << 20
"""Bytes of the largest layer's spikes of a pass: enough samples for small layers to pay."""
LARGEST_PASS = 512
"""Samples a pass, at most."""
INTEGER = 8
"""Bytes of a potential at most; most programs need 4."""


def samples_and_steps(
    program: IntProgram, block: int, *, memory: int | None = None, traced: bool = False
) -> tuple[int, int]:
    """Samples of a pass, and steps of a block, at most `block`.

    Parameters
    ----------
    memory:
        Bytes for weights, spikes, currents and states.
    traced:
        Whether the potential of every step is wanted.

    Raises
    ------
    TargetError
        If not even a single sample and step fit.
    """
    largest = max(prod(p.shape) for p in program.populations)
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
        remedy="give more with --memory",
    )


def _weights(program: IntProgram) -> int:
    """Weights in the program, as the products pack or write them out, and in words for events."""
    count = sum(
        s.weight.size
        for p in program.populations
        for s in p.synapses
        if not isinstance(s, WindowSynapse)
    )
    return 16 * count


def _of_sample(program: IntProgram, steps: int, *, traced: bool) -> int:
    """Bytes of one sample over a block: all states, and the layer that needs most beside them."""
    states = sum(2 * INTEGER * prod(p.shape) for p in program.populations)
    last = {s.source: i for i, p in enumerate(program.populations) for s in p.synapses}
    worst = alive = 0
    sizes = {
        INPUT: prod(program.input.shape),
        **{p.name: prod(p.shape) for p in program.populations},
    }
    held = {INPUT: INTEGER * sizes[INPUT]}
    for index, population in enumerate(program.populations):
        alive = sum(held.values())
        worst = max(worst, alive + _of_layer(population, sizes, steps, traced=traced))
        held[population.name] = steps * sizes[population.name]
        held = {name: size for name, size in held.items() if last.get(name, -1) > index}
    return states + worst


def _of_layer(population: Population, sizes: dict[str, int], steps: int, *, traced: bool) -> int:
    """Currents of each synapse in two layouts and picked out, their sum, spikes, lists, trace."""
    neurons = sizes[population.name]
    arriving = sum(sizes[s.source] for s in population.synapses)
    branches = len(population.synapses)
    each = 12 * branches + (INTEGER if branches > 1 else 0) + 2 + (INTEGER + 4 if traced else 0)
    return steps * (each * neurons + 4 * arriving)
