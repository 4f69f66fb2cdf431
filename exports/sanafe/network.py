"""A placed program as groups of neurons on SANA-FE's cores, and their connections.

SANA-FE's neuron of Loihi fires if `v > threshold` and takes no bias per step, and a spike arrives
one step later. So potentials lie 1/2 higher, a layer of depth d works at global steps d + 1 to
d + T, and `run.py` sets its potential and bias when they begin. A branch that is shorter than
another passes neurons that repeat its spikes a step later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from exports.sanafe.connections import connections
from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, WindowSynapse

CORES, PER_TILE, PER_CORE = 128, 4, 1024
"""SANA-FE 2.2.9, sanafe/examples/loihi.yaml: 32 tiles of 4 cores, max_neurons_supported 1024."""
STATE_BITS = 24
"""Potentials must be exact in the float32 that SANA-FE's Python interface passes on, with 1/2."""
NEVER = 1 << STATE_BITS
"""A threshold that no state exceeds."""
REPEATED = 2
"""Weight into a neuron that repeats spikes: its threshold is 1, and its reset sets it to 0."""
FIRING, SILENT = 0, 1
"""Groups of input neurons: those that fire at every wake step, and those whose value is 0."""


@dataclass(frozen=True)
class Group:
    """Neurons of one kind, "input", "layer" or "repeater"; `cores` (n,) are their places.

    `synapse` is "conv" where all their synapses are convolutions, else "dense": SANA-FE has a unit
    with costs of its own for each.
    """

    kind: str
    cores: np.ndarray
    synapse: str = "dense"

    @property
    def size(self) -> int:
        """Number of neurons."""
        return len(self.cores)


@dataclass(frozen=True)
class Network:
    """A network for one sample: groups, connections with their weights, neurons with their places.

    Neurons are named `group.offset`, by the group's index; places are a tile and a core in it.
    """

    groups: list[Group]
    connections: Iterator[tuple[str, str, int]]
    places: Iterator[tuple[str, int, int]]


@dataclass(frozen=True)
class Plan:
    """The parts of a network that do not depend on the sample.

    Attributes
    ----------
    first_free:
        Index of the first core that has no layer.
    waits:
        Most steps that spikes of a source wait for a longer branch, by source.
    """

    program: IntProgram
    homes: Mapping[str, np.ndarray]
    first_free: int
    waits: Mapping[str, int]

    @classmethod
    def of(cls, program: IntProgram, homes: Mapping[str, np.ndarray]) -> Plan:
        """The plan of a program with the core of every neuron, by layer.

        Raises
        ------
        TargetError
            If the program or its places do not fit SANA-FE's neurons and cores.
        """
        _check(program)
        waits: dict[str, int] = {}
        for population in program.populations:
            for synapse in population.synapses:
                wait = program.delay(population, synapse)
                waits[synapse.source] = max(wait, waits.get(synapse.source, 0))
        first_free = 1 + max(int(cores.max()) for cores in homes.values())
        plan = cls(program, homes, first_free, waits)
        plan._check_places()
        return plan

    @property
    def input_cores(self) -> int:
        """Cores that hold the input neurons, and send what a host would."""
        return ceil(prod(self.program.input.shape) / PER_CORE)

    def _repeaters(self) -> Iterator[tuple[str, int]]:
        """Sources and steps (from 1 on) of all neurons that repeat spikes."""
        for source, wait in self.waits.items():
            for step in range(1, wait + 1):
                yield source, step

    def _check_places(self) -> None:
        held = np.bincount(np.concatenate([cores.ravel() for cores in self.homes.values()]))
        if held.max() > PER_CORE:
            raise TargetError(
                "SANA-FE's Loihi holds fewer neurons in a core",
                node=self.program.name,
                found=f"{held.max():,} neurons in core {held.argmax()}",
                allowed=f"up to {PER_CORE:,}",
                remedy='place it with target="loihi1"',
            )
        repeating = sum(ceil(self._size(source) / PER_CORE) for source, _ in self._repeaters())
        cores = self.first_free + self.input_cores + repeating
        if cores > CORES:
            raise TargetError(
                "does not fit the one chip that SANA-FE simulates",
                node=self.program.name,
                found=f"{self.first_free} cores of layers, {self.input_cores} of the input, "
                f"{repeating} of neurons that repeat spikes for shorter branches",
                allowed=f"{CORES} cores",
            )

    def _size(self, source: str) -> int:
        return prod(self.program.source_shape(source))

    def network(self, sample: np.ndarray) -> Network:
        """The network for a sample of graded input spikes, int (C, H, W) or (F,)."""
        values = sample.ravel().astype(np.int64)
        names: dict[tuple[str, int], list[str]] = {}
        groups: list[Group] = []
        free = self.first_free

        def on_free_cores(size: int) -> np.ndarray:
            nonlocal free
            cores = free + np.arange(size) // PER_CORE
            free += ceil(size / PER_CORE)
            return cores

        cores = on_free_cores(len(values))
        fires = values != 0
        groups += [Group("input", cores[fires]), Group("input", cores[~fires])]
        offsets = np.where(fires, np.cumsum(fires), np.cumsum(~fires)) - 1
        of = np.where(fires, FIRING, SILENT)
        names[INPUT, 0] = [f"{g}.{n}" for g, n in zip(of.tolist(), offsets.tolist(), strict=True)]
        for population in self.program.populations:
            where = self.homes[population.name].ravel()
            names[population.name, 0] = [f"{len(groups)}.{n}" for n in range(len(where))]
            convolved = all(isinstance(s, ConvSynapse) for s in population.synapses)
            groups.append(Group("layer", where, "conv" if convolved else "dense"))
        for source, step in self._repeaters():
            where = on_free_cores(self._size(source))
            names[source, step] = [f"{len(groups)}.{n}" for n in range(len(where))]
            groups.append(Group("repeater", where))
        places = (
            (f"{index}.{neuron}", core // PER_TILE, core % PER_TILE)
            for index, group in enumerate(groups)
            for neuron, core in enumerate(group.cores.tolist())
        )
        return Network(groups, self._connections(names, values), places)

    def _connections(
        self, names: Mapping[tuple[str, int], list[str]], values: np.ndarray
    ) -> Iterator[tuple[str, str, int]]:
        """All connections; those from the input carry its values."""
        for population in self.program.populations:
            after = names[population.name, 0]
            for synapse in population.synapses:
                shape = self.program.source_shape(synapse.source)
                sources, targets, weights = connections(synapse, shape)
                if synapse.source == INPUT:
                    weights = weights * np.where(values == 0, 1, values)[sources]
                before = names[synapse.source, self.program.delay(population, synapse)]
                for source, target, weight in zip(
                    sources.tolist(), targets.tolist(), weights.tolist(), strict=True
                ):
                    yield before[source], after[target], weight
        for source, step in self._repeaters():
            pairs = zip(names[source, step - 1], names[source, step], strict=True)
            yield from ((earlier, later, REPEATED) for earlier, later in pairs)

    def layers(self) -> list[dict[str, object]]:
        """What `run.py` sets and reads of each layer."""
        depths, found = self.program.depths(), []
        for index, population in enumerate(self.program.populations):
            size, channels = prod(population.shape[1:]), population.shape[0]
            start, threshold = np.zeros(channels), np.full(channels, NEVER)
            if fires := isinstance(population.neuron, IntegrateAndFire):
                start = population.neuron.initial_potential + 0.5
                threshold = population.neuron.threshold
            found.append(
                {
                    "name": population.name,
                    "group": str(index + 2),
                    "depth": depths[population.name],
                    "fires": fires,
                    "potential": start.repeat(size).tolist(),
                    "bias": population.bias.repeat(size).tolist(),
                    "threshold": threshold.repeat(size).tolist(),
                }
            )
        return found


def _check(program: IntProgram) -> None:
    """Raise TargetError for what SANA-FE's neuron of Loihi cannot compute exactly."""
    if program.input.per_step:
        raise TargetError(
            "an input that changes over time is not written for SANA-FE",
            node=INPUT,
            found=f"a tensor for each of {program.schedule.wake_steps} wake steps",
            allowed="one that is the same on every wake step",
        )
    if program.watch_ranges:
        raise TargetError(
            "SANA-FE cannot watch states whose range is not proved",
            node=program.name,
            remedy="convert with fewer weight bits or steps",
        )
    if program.state_bits > STATE_BITS:
        raise TargetError(
            "SANA-FE is given potentials as float32",
            node=program.name,
            found=f"states of {program.state_bits} bits",
            allowed=f"up to {STATE_BITS}",
        )
    for population in program.populations:
        windows = any(isinstance(synapse, WindowSynapse) for synapse in population.synapses)
        if windows or not isinstance(population.neuron, IntegrateAndFire | Readout):
            raise TargetError(
                "SANA-FE's Loihi has no such neuron",
                node=population.name,
                found=population.neuron.kind,
                allowed="IF neurons, average pools that fold, readouts",
                remedy='convert with neuron="if" and max_spike=1, and train with average pools in '
                "place of max pools",
            )
