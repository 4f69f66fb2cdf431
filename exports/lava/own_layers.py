"""Blocks of a program for a `Network`. Import only after `hw_models.lava_compat.prepare()`."""

from __future__ import annotations

from itertools import pairwise

from exports.lava.layer_chain import LayerChain, table_row
from exports.lava.partition import even_cuts
from hw_models.block_layout import BlockLayout
from hw_models.message_bits import message_bits
from hw_models.processes.block import BlockProcess
from toolchain.errors import TargetError
from toolchain.program.cuts import possible_cuts
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse


def own_layers(
    program: IntProgram,
    filename: str,
    part: tuple[int, int | None],
    *,
    blocks: int | None,
    batch: int,
    start: int,
) -> LayerChain:
    """Blocks of the populations `part`, (first, end), where None means to the last.

    Parameters
    ----------
    blocks:
        Number of blocks; by default as many as the places to cut allow.
    start:
        Number of global steps before the first sample arrives.

    Raises
    ------
    TargetError
        If the network cannot be cut at these places.
    """
    edges = _edges(program, filename, *part, blocks)
    layers = [
        BlockProcess(layout=BlockLayout(program, first, last, batch, start=start))
        for first, last in pairwise(edges)
    ]
    populations = program.populations[edges[0] : edges[-1]]
    last = populations[-1]
    outputs = [p.name for p in populations if isinstance(p.neuron, Readout)]
    if len(outputs) > 1:
        raise TargetError(
            "a process with one port cannot send several outputs",
            node=filename,
            found=", ".join(outputs),
            remedy="run_on_lava (`spikeport run --backend lava`) records all of them; or take the "
            "layers up to where the outputs part, with num_layers",
        )
    depths = program.depths()
    if isinstance(last.neuron, Readout):
        bits = program.state_bits
    else:
        bits = message_bits(program.spike_range(last.name))
    return LayerChain(
        layers,
        [_row(program, p) for p in populations],
        depths[last.name] - depths[layers[0].layout.source],
        program.schedule.num_steps,
        bits,
    )


def _edges(
    program: IntProgram, filename: str, skip: int, count: int | None, blocks: int | None
) -> tuple[int, ...]:
    total = len(program.populations)
    last = total if count is None else min(count, total)
    possible = [0, *possible_cuts(program), total]
    for what, place in (("skip_layers", skip), ("num_layers", last)):
        if place not in possible or not skip < last:
            raise TargetError(
                "the network cannot be cut there",
                node=filename,
                found=f"{what} {place}",
                allowed=", ".join(map(str, possible)),
            )
    between = [place for place in possible if skip < place < last]
    if blocks is not None:
        if (skip, last) != (0, total):
            raise TargetError(
                "only a whole network is grouped into a number of blocks",
                node=filename,
                found=f"blocks {blocks} with layers {skip} .. {last - 1}",
                remedy="leave out blocks, or skip_layers and num_layers",
            )
        between = list(even_cuts(program, blocks))
    return (skip, *between, last)


def _row(program: IntProgram, population: Population) -> str:
    """One line of the table; of several synapses, the one with the largest kernel."""
    synapse = max(
        population.synapses,
        key=lambda s: s.weight.size if isinstance(s, ConvSynapse | DenseSynapse) else 0,
    )
    kind = {ConvSynapse: "Conv", WindowSynapse: "Pool", DenseSynapse: "Dense"}[type(synapse)]
    delayed = any(program.delay(population, s) for s in population.synapses)
    return table_row(kind, population.shape, synapse, delayed=delayed)
