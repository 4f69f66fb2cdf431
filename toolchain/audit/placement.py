"""Which core has which neurons: the cut of `chip_fit` as places on chips, with the traffic.

Cores are numbered in the order of the program, and fill one chip after the other, so that most
spikes stay on their chip or go to the next. With `whole_layers` a chip begins only where the spikes
of a single layer pass, as far as chips have room for what stands between two such places. Use is
counted per core, exactly: its own source neurons, not those of the largest piece. An axon is a pair
of a source neuron and a core that it reaches; it carries at most one message a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np

from toolchain.audit.chip_fit import (
    IN_AXONS,
    MEMORY,
    NEURONS,
    OUT_AXONS,
    Chip,
    Fit,
    Piece,
    fit,
    stored_weights,
)
from toolchain.program.cuts import PARTITION, possible_cuts
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse

Range = tuple[int, int]
"""First index, and that behind the last."""
Reach = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Source channels, rows and columns, bool each: together the source neurons that reach a core."""


@dataclass(frozen=True)
class Core:
    """A core with a piece of a layer.

    Attributes
    ----------
    box:
        Ranges of its channels, rows and columns; rows and columns of a vector are (0, 1).
    use:
        Neurons, in-axons, out-axons, bits of synaptic memory.
    sums:
        Weights added in a step in which all sources fire, those that meet padding counted too.
    """

    index: int
    chip: int
    layer: str
    box: tuple[Range, Range, Range]
    use: Mapping[str, int]
    sums: int


@dataclass(frozen=True)
class Placement:
    """The cores of a program on a chip.

    Attributes
    ----------
    traffic:
        Axons from one chip (None is the host, which sends the input) to another.
    """

    program: IntProgram
    fit: Fit
    cores: tuple[Core, ...]
    traffic: Mapping[tuple[int | None, int], int]

    def homes(self) -> dict[str, np.ndarray]:
        """Index of the core of every neuron, int64 (C, H, W) or (F,), by layer."""
        found = {p.name: np.zeros((*p.shape, 1, 1)[:3], np.int64) for p in self.program.populations}
        for core in self.cores:
            found[core.layer][tuple(slice(*ends) for ends in core.box)] = core.index
        return {p.name: found[p.name].reshape(p.shape) for p in self.program.populations}

    def describe(self) -> dict[str, Any]:
        """As JSON: the fit without its layers, all cores, and the traffic between chips."""
        about = {k: v for k, v in self.fit.describe().items() if k not in ("layers", "cores")}
        return {
            "format": PARTITION[0],
            "version": PARTITION[1],
            "program": {"name": self.program.name, "hash": self.program.hash},
            **about,
            "chips": 1 + self.cores[-1].chip,
            "cores": [
                {
                    "core": core.index,
                    "chip": core.chip,
                    "layer": core.layer,
                    **dict(zip(("channels", "rows", "columns"), map(list, core.box), strict=True)),
                    **core.use,
                    "sums": core.sums,
                }
                for core in self.cores
            ],
            "traffic": [
                {"from": "host" if source is None else source, "to": target, "axons": axons}
                for (source, target), axons in sorted(
                    self.traffic.items(), key=lambda item: (item[0][0] or 0, item[0][1])
                )
            ],
        }


def place(program: IntProgram, chip: Chip, *, whole_layers: bool = False) -> Placement:
    """Cut a program as `fit` does, and number its pieces core by core and chip by chip.

    With `whole_layers`, layers that no cut divides begin a new chip if the rest of one does not
    hold them; cores may remain free.
    """
    found = fit(program, chip)
    pieces = {layer.name: layer.chosen for layer in found.layers}
    boxes = {p.name: _boxes(p, pieces[p.name]) for p in program.populations}
    first, total = _numbered(program, boxes, chip.cores.value if whole_layers else None)
    out_axons = np.zeros(total, np.int64)
    traffic: dict[tuple[int | None, int], int] = {}

    def send(source: int | None, target: int, axons: int) -> None:
        traffic[source, target] = traffic.get((source, target), 0) + axons

    placed = []
    for population in program.populations:
        for number, box in enumerate(boxes[population.name]):
            index = first[population.name] + number
            where = index // chip.cores.value
            reaches = _reaches(program, population, box)
            for source, parts in reaches.items():
                if source == INPUT:
                    send(None, where, _union(parts))
                    continue
                sent = _sent(boxes[source], parts)
                at = first[source] + np.arange(len(sent))
                out_axons[at] += sent
                chips = at // chip.cores.value
                for other in set(chips[sent > 0].tolist()) - {where}:
                    send(other, where, int(sent[chips == other].sum()))
            placed.append((index, where, population, box, sum(map(_union, reaches.values()))))
    cores = []
    for index, where, population, box, in_axons in placed:
        channels, rows, columns = (high - low for low, high in box)
        sites = rows * columns
        stored, sums = (
            sum(stored_weights(s, channels, sites, shares=shares) for s in population.synapses)
            for shares in (chip.shares_kernels, False)
        )
        use = {
            NEURONS: channels * sites,
            IN_AXONS: in_axons,
            OUT_AXONS: int(out_axons[index]),
            MEMORY: stored * program.weight_bits,
        }
        cores.append(Core(index, where, population.name, box, use, sums))
    return Placement(program, found, tuple(cores), traffic)


def _numbered(
    program: IntProgram, boxes: Mapping[str, Sequence[object]], per_chip: int | None
) -> tuple[dict[str, int], int]:
    """Index of the first core of each layer, and that behind the last core.

    With `per_chip`, a run of layers between two possible cuts begins a chip if the rest of the
    last one has no room for it.
    """
    names = list(boxes)
    edges = [0, *possible_cuts(program), len(names)] if per_chip else [0, len(names)]
    first: dict[str, int] = {}
    total = 0
    for begin, end in pairwise(edges):
        size = sum(len(boxes[name]) for name in names[begin:end])
        if per_chip and size > -total % per_chip:
            total += -total % per_chip
        for name in names[begin:end]:
            first[name], total = total, total + len(boxes[name])
    return first, total


def _boxes(population: Population, piece: Piece) -> list[tuple[Range, Range, Range]]:
    """The pieces of a layer, channels first."""
    shape = (*population.shape, 1, 1)[:3]
    ranges = [
        [(low, min(low + size, end)) for low in range(0, end, size)]
        for size, end in zip(piece.tile, shape, strict=True)
    ]
    return [(c, r, q) for c, r, q in product(*ranges)]


def _reaches(
    program: IntProgram, population: Population, box: tuple[Range, Range, Range]
) -> dict[str, list[Reach]]:
    """Source neurons that reach a piece, by source, synapse by synapse."""
    found: dict[str, list[Reach]] = {}
    for synapse in population.synapses:
        shape = program.source_shape(synapse.source)
        found.setdefault(synapse.source, []).append(_reach(synapse, shape, box))
    return found


def _reach(synapse: Synapse, shape: tuple[int, ...], box: tuple[Range, Range, Range]) -> Reach:
    sizes = (*shape, 1, 1)[:3]
    if isinstance(synapse, DenseSynapse):
        channels, height, width = (np.ones(n, bool) for n in sizes)
        return channels, height, width
    channels, height, width = (np.zeros(n, bool) for n in sizes)
    low, high = box[0]
    if isinstance(synapse, ConvSynapse):
        targets, sources = len(synapse.weight) // synapse.groups, synapse.weight.shape[1]
        channels[low // targets * sources : ((high - 1) // targets + 1) * sources] = True
    else:
        channels[low:high] = True
    for axis, inside in enumerate((height, width)):
        met = synapse.met(shape, axis)[slice(*box[1 + axis])]
        inside[met[met >= 0]] = True
    return channels, height, width


def _union(reaches: Sequence[Reach]) -> int:
    """Number of neurons in any of the sets."""
    channels, rows, columns = ((0, len(axis)) for axis in reaches[0])
    return int(_sent([(channels, rows, columns)], reaches)[0])


def _sent(boxes: Sequence[tuple[Range, Range, Range]], reaches: Sequence[Reach]) -> np.ndarray:
    """Number of neurons of each source piece in any of the sets: int64 (pieces,).

    By inclusion and exclusion.
    """
    ends = np.array(boxes)
    total = np.zeros(len(boxes), np.int64)
    for count in range(1, len(reaches) + 1):
        for some in combinations(reaches, count):
            inside = np.ones(len(boxes), np.int64)
            for axis, sets in enumerate(zip(*some, strict=True)):
                before = np.concatenate([[0], np.cumsum(np.logical_and.reduce(sets))])
                inside *= before[ends[:, axis, 1]] - before[ends[:, axis, 0]]
            total += (-1) ** (count + 1) * inside
    return total
