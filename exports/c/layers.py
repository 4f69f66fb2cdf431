"""What the templates of the C source need to know of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse

KINDS = ("IF", "GRADED_IF", "CIF", "LIPOOL", "RELAY", "READOUT")
"""Neurons that the template of the source has."""
TYPES = {
    "uint8_t": IntRange.unsigned(8),
    "int8_t": IntRange.signed(8),
    "uint16_t": IntRange.unsigned(16),
    "int16_t": IntRange.signed(16),
    "int32_t": IntRange.signed(32),
}
VALUES_PER_LINE = 20


@dataclass(frozen=True)
class Array:
    """A constant array of the source, in the smallest type that holds it."""

    name: str
    values: np.ndarray

    @property
    def c_type(self) -> str:
        """Its type in C."""
        return smallest(IntRange(int(self.values.min()), int(self.values.max())))

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.values.size * np.dtype(self.c_type.removesuffix("_t")).itemsize


@dataclass(frozen=True)
class Connection:
    """A synapse with what C needs of its source: where the spikes are, and their shape.

    `window` is the synapse of a max pool, `kind` "conv", "dense" or "window".
    """

    synapse: Synapse
    kind: str
    weight: Array | None
    source: str
    shape: tuple[int, ...]
    from_input: bool


@dataclass(frozen=True)
class Layer:
    """A population; `plane` is (C, H, W), of a vector (F, 1, 1).

    Attributes
    ----------
    wide:
        Type of sums that holds every partial sum, with the potential before it: int32_t, or
        int64_t.
    """

    index: int
    population: Population
    kind: str
    plane: tuple[int, int, int]
    connections: tuple[Connection, ...]
    arrays: dict[str, Array]
    wide: str

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.plane)

    @property
    def constants(self) -> list[Array]:
        """Its parameters and weights, as the source has them."""
        return [*self.arrays.values(), *(c.weight for c in self.connections if c.weight)]


def smallest(values: IntRange) -> str:
    """The smallest integer type of C that holds `values`, and turns into an int as it is.

    So no uint32_t: compared with an int, it makes that unsigned too.
    """
    for name, held in TYPES.items():
        if held.contains(values.low, values.high):
            return name
    raise TargetError("an integer is too large for the C source", found=str(values))


def initialiser(values: np.ndarray) -> str:
    """The values in memory order, separated by commas, some on each line."""
    words = [literal(v) for v in values.ravel().tolist()]
    rows = range(0, len(words), VALUES_PER_LINE)
    return ",\n    ".join(", ".join(words[row : row + VALUES_PER_LINE]) for row in rows)


def literal(value: int) -> str:
    """A constant of C: -2147483648 has no literal of its own."""
    return f"({value + 1} - 1)" if value == -(1 << 31) else str(value)


def layers_of(program: IntProgram) -> list[Layer]:
    """The layers of a program, in its order.

    Raises
    ------
    TargetError
        If a neuron has no C source, or sums may not fit 64 bits.
    """
    numbers = {p.name: number for number, p in enumerate(program.populations)}
    return [_layer(program, population, numbers) for population in program.populations]


def _layer(program: IntProgram, population: Population, numbers: dict[str, int]) -> Layer:
    index, neuron = numbers[population.name], population.neuron
    if neuron.kind not in KINDS:
        raise TargetError("no C source for this neuron", node=population.name, found=neuron.kind)
    connections = []
    bound = program.state_range.high + int(np.abs(population.bias.astype(np.int64)).max())
    for number, synapse in enumerate(population.synapses):
        weight = None
        if not isinstance(synapse, WindowSynapse):
            weight = Array(f"weight_{index}_{number}", synapse.arrays()["weight"])
        bound += largest_sum(synapse, program.spike_range(synapse.source))
        shape = program.source_shape(synapse.source)
        from_input = synapse.source == INPUT
        source = "input" if from_input else f"state->spikes_{numbers[synapse.source]}"
        connections.append(Connection(synapse, _kind(synapse), weight, source, shape, from_input))
    if bound >= 1 << 62:
        raise TargetError("sums may pass 64 bits", node=population.name, found=bound)
    arrays = {name: Array(f"{name}_{index}", values) for name, values in neuron.arrays().items()}
    if population.bias.any():
        arrays["bias"] = Array(f"bias_{index}", population.bias)
    channels, *sides = population.shape
    height, width = sides or (1, 1)
    wide = "int32_t" if bound < 1 << 31 else "int64_t"
    plane = (channels, height, width)
    return Layer(index, population, neuron.kind, plane, tuple(connections), arrays, wide)


def _kind(synapse: Synapse) -> str:
    if isinstance(synapse, ConvSynapse):
        return "conv"
    return "dense" if isinstance(synapse, DenseSynapse) else "window"
