"""Whether a program fits a chip whose cores hold one whole convolution each, such as Speck's.

A dense layer is a convolution as large as its source, and a sum over windows in front of a
convolution is done by the core that sends the spikes. Memory is counted as sinabs does
(3.1.3, DynapcnnLayer.memory_summary): addresses of kernels and of planes have whole bits, so that
sizes count as the next power of two. Each layer then takes a core of its own that has room for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from toolchain.audit.chip_fit import Problem, described_numbers, fullest, number_problem
from toolchain.int_range import TargetLimits
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.program.target_check import beyond_target

MEMORIES = {
    "kernel_memory": "bytes of kernels",
    "neuron_memory": "states of 16 bits",
    "bias_memory": "biases",
}


@dataclass(frozen=True)
class LayerLimit:
    """Numbers (of each core, the largest, or all that are possible), and their source."""

    values: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class LayerChip:
    """A chip whose cores hold a layer each; `limits` by the names of `hw_models.profile`."""

    name: str
    limits: Mapping[str, LayerLimit]
    numbers: TargetLimits
    sources: Mapping[str, str]

    @property
    def num_cores(self) -> int:
        """Number of cores."""
        return len(self.limits["kernel_memory"].values)

    def fit(self, program: IntProgram) -> LayerCoresFit:
        """The core of each layer, and what does not fit."""
        problems = [number_problem(n, self.sources) for n in beyond_target(program, self.numbers)]
        uses = {}
        problems += self._input(program)
        for population in program.populations:
            found = list(self._misfits(program, population))
            problems += found
            if not found:
                uses[population.name] = _memory(program, population, self.limits["pool"].values)
        homes = {
            name: [core for core in range(self.num_cores) if self._holds(core, use)]
            for name, use in uses.items()
        }
        cores = _matched(homes)
        for name, possible in homes.items():
            if not possible:
                problems += self._too_large(name, uses[name])
            elif name not in cores:
                told = f"a core of its own, of the {self.num_cores}: those that could hold it "
                told += f"({', '.join(map(str, possible))}) hold other layers"
                source = self.limits["kernel_memory"].source
                problems.append(_problem(name, "cores", 1, 0, told, source))
        return LayerCoresFit(self, program, uses, cores, tuple(problems))

    def _holds(self, core: int, use: Mapping[str, int]) -> bool:
        return all(use[name] <= self.limits[name].values[core] for name in MEMORIES)

    def _too_large(self, layer: str, use: Mapping[str, int]) -> list[Problem]:
        """Why no core holds a layer: each memory that none has, or that none has all."""
        largest = {name: max(self.limits[name].values) for name in MEMORIES}
        lacking = [name for name in MEMORIES if use[name] > largest[name]] or list(MEMORIES)[:2]
        joint = all(use[name] <= largest[name] for name in MEMORIES)
        return [
            _problem(
                layer,
                name,
                use[name],
                largest[name],
                f"{use[name]:,} {MEMORIES[name]}, of {largest[name]:,} at most"
                + (" (no core has both)" if joint else ""),
                self.limits[name].source,
            )
            for name in lacking
        ]

    def _input(self, program: IntProgram) -> Iterator[Problem]:
        if program.input.range.low < 0:
            told = f"negative inputs ({program.input.range}); events have no sign"
            source = self.sources["max_input_bits"]
            yield _problem(INPUT, "input", program.input.range.low, 0, told, source)

    def _misfits(self, program: IntProgram, population: Population) -> Iterator[Problem]:
        """What a core cannot do at all, whatever its memory."""
        name = population.name

        def misfit(limit: str, used: int, told: str) -> Problem:
            allowed = self.limits[limit]
            return _problem(name, limit, used, max(allowed.values), told, allowed.source)

        if not isinstance(population.neuron, IntegrateAndFire | Readout):
            told = f"{population.neuron.kind} neurons; a core has IF neurons"
            yield misfit("thresholds", 1, told)
            return
        if len(population.synapses) > 1:
            told = f"{len(population.synapses)} kernels; a core has one"
            yield misfit("kernel", len(population.synapses), told)
            return
        readers = sum(name == s.source for p in program.populations for s in p.synapses)
        most = self.limits["fan_out"].values[0]
        if readers > most:
            yield misfit("fan_out", readers, f"{readers} layers that read it, of {most}")
        (synapse,) = population.synapses
        source = (*program.source_shape(synapse.source), 1, 1)[:3]
        window, synapse = _convolution(program, population, self.limits["pool"].values)
        plane, kernel = (source[1] // window, source[2] // window), synapse.kernel
        for limit, sizes in (
            ("channels", (source[0], population.shape[0])),
            ("input_size", plane),
            ("output_size", population.shape[1:] or (1,)),
            ("kernel", kernel),
        ):
            most = self.limits[limit].values[0]
            if max(sizes) > most:
                told = f"{limit.replace('_', ' ')} {' x '.join(map(str, sizes))}, of {most}"
                yield misfit(limit, max(sizes), told)
        if kernel[0] != kernel[1]:
            yield misfit("kernel", max(kernel), f"a kernel of {kernel[0]} x {kernel[1]}; square")
        if synapse.dilation != (1, 1) or not synapse.is_even:
            told = "a kernel that is dilated, or upsamples or pads unevenly"
            yield misfit("kernel", max(synapse.dilation), told)
        strides = self.limits["stride"].values
        if not set(synapse.stride) <= set(strides):
            told = f"stride {synapse.stride[0]} x {synapse.stride[1]}, of {strides}"
            yield misfit("stride", max(synapse.stride), told)
        most = self.limits["padding"].values[0]
        if max(synapse.padding) > most:
            yield misfit("padding", max(synapse.padding), f"padding {synapse.padding}, of {most}")


@dataclass(frozen=True)
class LayerCoresFit:
    """The layers of a program on the cores of a chip.

    Attributes
    ----------
    uses:
        Words of memory of each layer that a core can compute, by the names of `MEMORIES`.
    placed:
        Index of the core of each layer that has one.
    """

    chip: LayerChip
    program: IntProgram
    uses: Mapping[str, Mapping[str, int]]
    placed: Mapping[str, int]
    found: tuple[Problem, ...]

    @property
    def cores(self) -> int:
        """Number of cores that the layers need."""
        return len(self.program.populations)

    @property
    def chips(self) -> int:
        """1: layers of one network are on one chip."""
        return 1

    def problems(self) -> list[Problem]:
        """What does not fit, with its sources."""
        return list(self.found)

    def _fullest(self, layer: str) -> dict[str, Any] | None:
        """What the core of a layer has least of, see `chip_fit.fullest`."""
        if layer not in self.placed:
            return None
        core = self.placed[layer]
        return fullest(self.uses[layer], {k: self.chip.limits[k].values[core] for k in MEMORIES})

    def describe(self) -> dict[str, Any]:
        """As JSON, in the form of `chip_fit.Fit.describe`; a layer's `core` is None without one."""
        memory = self.chip.limits["kernel_memory"]
        return {
            "chip": self.chip.name,
            "cores": self.cores,
            "chips": self.chips,
            "cores_per_chip": {"value": self.chip.num_cores, "source": memory.source},
            "limits": {
                name: {"value": list(limit.values), "source": limit.source, "level": "error"}
                for name, limit in self.chip.limits.items()
            },
            "numbers": described_numbers(self.chip.numbers, self.chip.sources),
            "shares_kernels": True,
            "problems": self.problems(),
            "layers": [
                {
                    "name": p.name,
                    "shape": list(p.shape),
                    "split": "layer",
                    "cores": 1,
                    "core": self.placed.get(p.name),
                    "use": dict(self.uses.get(p.name, dict.fromkeys(MEMORIES, 0))),
                    "fullest": self._fullest(p.name),
                    "other_split": None,
                }
                for p in self.program.populations
            ],
        }


def _problem(
    layer: str, limit: str, used: object, allowed: object, told: str, source: str
) -> Problem:
    return {
        "level": "error",
        "layer": layer,
        "limit": limit,
        "used": used,
        "allowed": allowed,
        "told": told,
        "source": source,
    }


def _convolution(
    program: IntProgram, population: Population, pools: Sequence[int]
) -> tuple[int, ConvSynapse]:
    """The side of the windows that are summed in front, and the convolution behind the sums.

    The conversion folds a pool into the weights behind it, as blocks of equal ones. A dense layer's
    kernel is as large as its source; at its only place it has no stride.
    """
    (synapse,) = population.synapses
    source = (*program.source_shape(synapse.source), 1, 1)[:3]
    is_dense = isinstance(synapse, DenseSynapse)
    if isinstance(synapse, DenseSynapse):
        plane = (source[1], source[2])
        synapse = ConvSynapse(synapse.source, synapse.weight.reshape(-1, *source), plane)
    assert isinstance(synapse, ConvSynapse)
    sizes = (*synapse.stride, *synapse.padding, *synapse.kernel, *source[1:])
    even = synapse.is_even and synapse.dilation == (1, 1)
    for side in sorted(pools, reverse=True) if even else ():
        if any(size % side for size in sizes):
            continue
        weight = synapse.weight[:, :, ::side, ::side]
        if np.array_equal(weight.repeat(side, 2).repeat(side, 3), synapse.weight):
            down, across = synapse.stride[0] // side, synapse.stride[1] // side
            padding = (synapse.padding[0] // side, synapse.padding[1] // side)
            stride = (1, 1) if is_dense else (down, across)
            return side, replace(synapse, weight=weight, stride=stride, padding=padding)
    return 1, replace(synapse, stride=(1, 1)) if is_dense else synapse


def _memory(program: IntProgram, population: Population, pools: Sequence[int]) -> dict[str, int]:
    """Words of each memory; kernels of groups are stored with the zeros between groups."""
    _, synapse = _convolution(program, population, pools)
    channels, plane = population.shape[0], population.shape[1:] or (1, 1)
    sources = program.source_shape(synapse.source)[0]
    return {
        "kernel_memory": sources * _addresses(prod(synapse.kernel)) * _addresses(channels),
        "neuron_memory": channels * _addresses(plane[0]) * _addresses(plane[1]),
        "bias_memory": channels if population.bias.any() else 0,
    }


def _addresses(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _matched(possible: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """A core for as many layers as can have one each, by augmenting paths."""
    taken: dict[int, str] = {}

    def seat(layer: str, seen: set[int]) -> bool:
        for core in possible[layer]:
            if core not in seen:
                seen.add(core)
                if core not in taken or seat(taken[core], seen):
                    taken[core] = layer
                    return True
        return False

    for layer in possible:
        seat(layer, set())
    return {layer: core for core, layer in taken.items()}
