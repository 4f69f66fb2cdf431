"""What the template of a module needs to know of each layer, and the arrays it loads."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import IntegrateAndFire, LIPool, Readout, Relay
from toolchain.program.synapse import DenseSynapse, Sliding, Synapse, WindowSynapse

TAKEN = frozenset({"self", "x", "plane"})
"""Names that the written `step` has for something else."""


@dataclass(frozen=True)
class Part:
    """A synapse as Python expressions: how its module is made, and what it is given.

    No attribute is one of torch's modules: those of synapses end in "_in", of neurons in "_if".
    """

    attribute: str
    made: str
    given: str


@dataclass(frozen=True)
class Layer:
    """A population as statements of a module.

    Attributes
    ----------
    identifier:
        Its name as one of Python's; `name` is that in the program.
    kind:
        "fires", "pool", "relay" or "readout".
    """

    name: str
    identifier: str
    kind: str
    parts: tuple[Part, ...]


@dataclass
class Layers:
    """The layers of a program, and their arrays by the name that the module loads them by."""

    layers: list[Layer] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def layers_of(program: IntProgram, tool: str) -> Layers:
    """The layers of a program of IF neurons, in its order.

    Raises
    ------
    TargetError
        If there are neurons that the tool does not have, sleep steps, or ranges that are not
        proved.
    """
    if program.watch_ranges:
        raise TargetError(
            f"a module of {tool} cannot watch states whose range is not proved",
            node=program.name,
            remedy="convert with fewer weight bits or steps",
        )
    if program.schedule.sleep_steps:
        raise TargetError(f"a module of {tool} has no sleep steps", node=program.name)
    found, names = Layers(), {INPUT: "x"}
    for population in program.populations:
        identifier = _identifier(population.name, {*names.values(), *TAKEN})
        names[population.name] = identifier
        kind = _kind(population, tool)
        parts = []
        for number, synapse in enumerate(population.synapses):
            several = len(population.synapses) > 1
            attribute = f"{identifier}_in{number}" if several else f"{identifier}_in"
            shape, source = program.source_shape(synapse.source), names[synapse.source]
            bias = population.bias if number == 0 and population.bias.any() else None
            parts.append(_part(found, attribute, synapse, source, shape, bias))
        if isinstance(population.neuron, IntegrateAndFire):
            shape = (-1, *([1] * (len(population.shape) - 1)))
            found.arrays[f"{identifier}.threshold"] = population.neuron.threshold.reshape(shape)
            found.arrays[f"{identifier}.start"] = population.neuron.initial_potential.reshape(shape)
        found.layers.append(Layer(population.name, identifier, kind, tuple(parts)))
    return found


def _kind(population: Population, tool: str) -> str:
    kinds = {IntegrateAndFire: "fires", LIPool: "pool", Relay: "relay", Readout: "readout"}
    kind = kinds.get(type(population.neuron))
    if kind is None:
        raise TargetError(
            f"{tool} does not have this neuron",
            node=population.name,
            found=population.neuron.kind,
            remedy='convert with neuron="if" and max_spike=1, or export to="onnx" or "c"',
        )
    return kind


def _part(
    found: Layers,
    attribute: str,
    synapse: Synapse,
    source: str,
    shape: tuple[int, ...],
    bias: np.ndarray | None,
) -> Part:
    """A synapse on values named `source` with this shape; its arrays go to `found`."""
    if isinstance(synapse, WindowSynapse):
        how = {"kernel_size": synapse.kernel, **_places(synapse)}
        return Part(attribute, _called("LargestCount", [], how), _laid_out(synapse, source))
    weight = synapse.weight.astype(np.int64) << synapse.weight_exponent
    arrays = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    found.arrays.update({f"{attribute}.{name}": values for name, values in arrays.items()})
    loaded = [f'w["{attribute}.{name}"]' for name in arrays]
    if isinstance(synapse, DenseSynapse):
        flat = source if len(shape) == 1 else f"{source}.flatten(1)"
        return Part(attribute, _called("linear", loaded, {}), flat)
    how = _places(synapse) | ({"groups": synapse.groups} if synapse.groups > 1 else {})
    return Part(attribute, _called("conv", loaded, how), _laid_out(synapse, source))


def _places(synapse: Sliding) -> dict[str, Any]:
    """Arguments of torch that are not its defaults, but for those that `_laid_out` says."""
    how = {"stride": synapse.stride, "dilation": synapse.dilation}
    if synapse.is_even:
        how["padding"] = synapse.padding
    neutral = {"stride": (1, 1), "dilation": (1, 1), "padding": (0, 0)}
    is_pool = isinstance(synapse, WindowSynapse)
    return {k: v for k, v in how.items() if v != neutral[k] or (is_pool and k == "stride")}


def _laid_out(synapse: Sliding, source: str) -> str:
    """The plane that a kernel sees, where torch's own padding does not make it."""
    if synapse.is_even:
        return source
    (top, left), (below, right) = synapse.padding, synapse.end
    return f"plane({source}, {synapse.upsample}, {(left, right, top, below)})"


def _called(function: str, loaded: list[str], how: dict[str, Any]) -> str:
    return f"{function}({', '.join([*loaded, *(f'{k}={v}' for k, v in how.items())])})"


def _identifier(name: str, taken: set[str]) -> str:
    """A name of a layer as one of Python's that is not taken."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    if not plain or plain[0].isdigit() or keyword.iskeyword(plain):
        plain = f"layer_{plain}".rstrip("_")
    found, number = plain, 1
    while found in taken:
        number += 1
        found = f"{plain}_{number}"
    return found
