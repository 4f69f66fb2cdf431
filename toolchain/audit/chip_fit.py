"""Whether a program fits a chip: a partition of every layer onto cores, against public limits.

A layer is cut into equal pieces, by channel or by area (bands of rows, then parts of rows), into
as few as the limits allow. A piece by channel has every source neuron of its groups as input; a
piece by area only those that its kernels reach, but it contains all kernels. Counted per core are:

- its neurons;
- in-axons: source neurons whose spikes reach it;
- out-axons: for each of its neurons, the cores that its spikes go to;
- synaptic memory: its weights, once per kernel if the chip shares kernels of
  convolutions, else once per synapse.

Numbers that do not fit registers (widths of weights, exponents, thresholds, biases, messages) are
reported too. Exceeding a limit with a public source is an error, and one without is a warning.
Out-axons follow from how the next layers are cut; they are reported, not fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import ceil, prod
from typing import Any

from toolchain.int_range import TargetLimits
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse
from toolchain.program.target_check import Beyond, beyond_target

NEURONS, IN_AXONS, OUT_AXONS, MEMORY = "neurons", "in_axons", "out_axons", "synapse_bits"
Tile = tuple[int, int, int]
"""Number of channels, rows and columns."""
PER_CORE = (NEURONS, IN_AXONS, OUT_AXONS, MEMORY)
Problem = dict[str, Any]
"""A limit that is exceeded: level, layer, limit, used, allowed, told (in words), source."""


@dataclass(frozen=True)
class ChipLimit:
    """A limit and its source; `source` is empty if none is public."""

    value: int
    source: str

    @property
    def level(self) -> str:
        """Level of a violation: "error" with a public source, otherwise "warning"."""
        return "error" if self.source else "warning"


@dataclass(frozen=True)
class Chip:
    """A chip's limits.

    Attributes
    ----------
    per_core:
        The known limits among `PER_CORE`.
    shares_kernels:
        Whether a core stores a kernel once.
    numbers:
        Limits of registers: widths of weights, exponents, thresholds, messages.
    sources:
        Source of each field of `numbers`.
    """

    name: str
    cores: ChipLimit
    per_core: Mapping[str, ChipLimit]
    shares_kernels: bool
    numbers: TargetLimits | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def fit(self, program: IntProgram) -> Fit:
        """The cut of a program, see `fit`."""
        return fit(program, self)


@dataclass(frozen=True)
class Piece:
    """The largest of the `pieces` of a layer, with its channels, rows and columns."""

    split: str
    pieces: int
    tile: Tile
    use: Mapping[str, int]


@dataclass(frozen=True)
class LayerFit:
    """The cut of a layer, and the other possible cut (None if no such cut fits)."""

    name: str
    shape: tuple[int, ...]
    chosen: Piece
    other: Piece | None


@dataclass(frozen=True)
class Fit:
    """The cut of a whole program onto a chip."""

    chip: Chip
    layers: tuple[LayerFit, ...]
    beyond: tuple[Beyond, ...] = ()

    @property
    def cores(self) -> int:
        """Number of cores over all layers; no core contains parts of two layers."""
        return sum(layer.chosen.pieces for layer in self.layers)

    @property
    def chips(self) -> int:
        """Number of chips that contain these cores."""
        return ceil(self.cores / self.chip.cores.value)

    def problems(self) -> list[Problem]:
        """Limits that are exceeded, with their sources."""
        found = [number_problem(number, self.chip.sources) for number in self.beyond]
        for layer in self.layers:
            for name, limit in self.chip.per_core.items():
                used = layer.chosen.use[name]
                if used > limit.value:
                    found.append(
                        {
                            "level": limit.level,
                            "layer": layer.name,
                            "limit": name,
                            "used": used,
                            "allowed": limit.value,
                            "told": f"{used:,} {name} per core, of {limit.value:,}",
                            "source": limit.source,
                        }
                    )
        return found

    def _limits(self) -> dict[str, int]:
        """The limits that decide how layers are cut."""
        fitted = (NEURONS, IN_AXONS, MEMORY)
        return {
            name: self.chip.per_core[name].value for name in fitted if name in self.chip.per_core
        }

    def describe(self) -> dict[str, Any]:
        """The fit as JSON: the chip, cores used, each limit with its source, and problems."""
        return {
            "chip": self.chip.name,
            "cores": self.cores,
            "chips": self.chips,
            "cores_per_chip": {
                "value": self.chip.cores.value,
                "source": self.chip.cores.source,
            },
            "limits": {
                name: {"value": limit.value, "source": limit.source, "level": limit.level}
                for name, limit in self.chip.per_core.items()
            },
            "numbers": described_numbers(self.chip.numbers, self.chip.sources),
            "shares_kernels": self.chip.shares_kernels,
            "problems": self.problems(),
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "split": layer.chosen.split,
                    "cores": layer.chosen.pieces,
                    "use": dict(layer.chosen.use),
                    "fullest": fullest(layer.chosen.use, self._limits()),
                    "other_split": None
                    if layer.other is None
                    else {"split": layer.other.split, "cores": layer.other.pieces},
                }
                for layer in self.layers
            ],
        }


def fullest(use: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, Any] | None:
    """The limit of which a core uses the largest share, and this share; None without limits."""
    shares = {name: use[name] / value for name, value in limits.items()}
    if not shares:
        return None
    name = max(shares, key=lambda limit: shares[limit])
    return {"limit": name, "share": shares[name]}


def described_numbers(
    numbers: TargetLimits | None, sources: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Values that registers must hold, with their limits and sources."""
    if numbers is None:
        return {}
    return {
        limit.name: {"value": getattr(numbers, limit.name), "source": sources.get(limit.name, "")}
        for limit in fields(numbers)
        if limit.name not in ("name", "one_threshold")
    }


def number_problem(number: Beyond, sources: Mapping[str, str]) -> Problem:
    """A value that a register cannot hold."""
    source = sources.get(number.limit, "")
    return {
        "level": ChipLimit(0, source).level,
        "layer": number.node,
        "limit": number.limit,
        "used": [number.found.low, number.found.high],
        "allowed": [number.allowed.low, number.allowed.high],
        "told": f"{number.what} {number.found}, of {number.allowed}",
        "source": source,
    }


def fit(program: IntProgram, chip: Chip) -> Fit:
    """Cut every population so that neurons, in-axons and memory fit, with the fewest cores."""
    chosen: list[LayerFit] = []
    for population in program.populations:
        cuts = [_fewest(program, population, chip, split) for split in ("channel", "area")]
        # A limit that every cut exceeds does not decide between cuts; it is reported.
        kept = max(len(limits) for limits, _ in cuts)
        possible = [cut for limits, cut in cuts if len(limits) == kept]
        best = min(possible, key=lambda p: (p.pieces, p.use[IN_AXONS]))
        other = next((cut for cut in possible if cut.split != best.split), None)
        chosen.append(LayerFit(population.name, population.shape, best, other))
    cores = {layer.name: layer.chosen for layer in chosen}
    beyond = () if chip.numbers is None else tuple(beyond_target(program, chip.numbers))
    return Fit(chip, tuple(_with_out_axons(program, layer, cores) for layer in chosen), beyond)


def _fewest(
    program: IntProgram, population: Population, chip: Chip, split: str
) -> tuple[tuple[str, ...], Piece]:
    """The limits that the finest cut satisfies, and the cut into the fewest pieces that does so."""
    units = _units(population, split)
    finest = _cut(program, population, chip, split, units)
    limits = tuple(
        name
        for name in (NEURONS, IN_AXONS, MEMORY)
        if name in chip.per_core and finest.use[name] <= chip.per_core[name].value
    )
    low, high = 1, units
    while low < high:
        middle = (low + high) // 2
        piece = _cut(program, population, chip, split, middle)
        if all(piece.use[name] <= chip.per_core[name].value for name in limits):
            high = middle
        else:
            low = middle + 1
    return limits, _cut(program, population, chip, split, low)


def _units(population: Population, split: str) -> int:
    """Largest number of pieces: channels, or sites of the plane."""
    return population.shape[0] if split == "channel" else prod(population.shape[1:])


def _tile(population: Population, split: str, pieces: int) -> tuple[Tile, int]:
    """The largest of at most `pieces` pieces, and their number."""
    channels, (height, width) = population.shape[0], population.shape[1:] or (1, 1)
    if split == "channel":
        size = ceil(channels / pieces)
        return (size, height, width), ceil(channels / size)
    rows = ceil(height / min(pieces, height))
    bands = ceil(height / rows)
    columns = ceil(width / max(1, pieces // height)) if rows == 1 else width
    return (channels, rows, columns), bands * ceil(width / columns)


def _cut(program: IntProgram, population: Population, chip: Chip, split: str, pieces: int) -> Piece:
    tile, pieces = _tile(population, split, pieces)
    in_axons: dict[str, int] = {}
    memory = 0
    for synapse in population.synapses:
        shape = program.source_shape(synapse.source)
        # Two synapses from one source share its axons.
        taken = in_axons.get(synapse.source, 0)
        in_axons[synapse.source] = max(taken, _in_axons(synapse, shape, tile))
        memory += stored_weights(synapse, tile[0], tile[1] * tile[2], shares=chip.shares_kernels)
    use = {
        NEURONS: prod(tile),
        IN_AXONS: sum(in_axons.values()),
        OUT_AXONS: 0,
        MEMORY: memory * program.weight_bits,
    }
    return Piece(split, pieces, tile, use)


def _in_axons(synapse: Synapse, source: tuple[int, ...], tile: Tile) -> int:
    """Number of source neurons that reach a tile."""
    if isinstance(synapse, DenseSynapse):
        return prod(source)
    if isinstance(synapse, ConvSynapse):
        groups, per_group = synapse.groups, len(synapse.weight) // synapse.groups
        taken = min(groups, ceil(tile[0] / per_group)) * synapse.weight.shape[1]
    else:
        taken = tile[0]
    for axis in range(2):
        reach = (tile[1 + axis] - 1) * synapse.stride[axis] + _span(synapse, axis)
        taken *= min(ceil(reach / synapse.upsample[axis]), source[1 + axis])
    return taken


def _span(synapse: ConvSynapse | WindowSynapse, axis: int) -> int:
    """Number of rows or columns that a kernel covers."""
    return (synapse.kernel[axis] - 1) * synapse.dilation[axis] + 1


def stored_weights(synapse: Synapse, channels: int, sites: int, *, shares: bool) -> int:
    """Number of weights for `channels` channels at `sites` sites."""
    if isinstance(synapse, WindowSynapse):
        return channels * sites * prod(synapse.kernel)
    kernel = synapse.weight[0].size * channels
    if isinstance(synapse, DenseSynapse):
        return kernel * sites
    if shares:
        return kernel
    # Where the source is spread out, a site meets only some of the taps.
    taps = prod(ceil(k / apart) for k, apart in zip(synapse.kernel, synapse.apart, strict=True))
    return synapse.weight.shape[1] * taps * channels * sites


def _with_out_axons(program: IntProgram, layer: LayerFit, cores: Mapping[str, Piece]) -> LayerFit:
    """The layer with its out-axons: per neuron of the largest piece, the cores that it reaches."""
    targets = sum(
        max(
            (
                _cores_reached(synapse, population, cores[population.name])
                for synapse in population.synapses
                if synapse.source == layer.name
            ),
            default=0,
        )
        for population in program.populations
    )
    use = {**layer.chosen.use, OUT_AXONS: layer.chosen.use[NEURONS] * targets}
    return replace(layer, chosen=replace(layer.chosen, use=use))


def _cores_reached(synapse: Synapse, population: Population, piece: Piece) -> int:
    """Largest number of target cores that one source neuron reaches."""
    if isinstance(synapse, DenseSynapse):
        return piece.pieces
    if piece.split == "channel":
        groups = population.shape[0]
        if isinstance(synapse, ConvSynapse):
            groups = synapse.groups
        in_group = population.shape[0] // groups
        return min(piece.pieces, ceil(in_group / piece.tile[0]) + (groups > 1))
    reached = 1
    for axis in range(2):
        covered = ceil(_span(synapse, axis) / synapse.stride[axis])
        size = piece.tile[1 + axis]
        if size < population.shape[1 + axis]:
            reached *= ceil((covered - 1) / size) + 1
    return min(piece.pieces, reached)
