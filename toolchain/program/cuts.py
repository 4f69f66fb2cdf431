"""Where a program can be cut into blocks in a row."""

from __future__ import annotations

from toolchain.program.int_program import IntProgram

PARTITION = ("spikeport.partition", 1)
"""Format and version of the files that say which core of which chip has which neurons."""


def possible_cuts(program: IntProgram) -> list[int]:
    """Indices of populations before which only the spikes of the previous population pass."""
    names = [p.name for p in program.populations]
    cuts = []
    for index in range(1, len(names)):
        later = {p.name for p in program.populations[index:]}
        crossing = {s.source for p in program.populations[index:] for s in p.synapses} - later
        if crossing == {names[index - 1]}:
            cuts.append(index)
    return cuts
