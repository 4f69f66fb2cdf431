"""Conversion of an integer program into a NIR graph, without any rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exports.nir.layout import (
    HASH,
    INPUT,
    KEY,
    LARGEST_EXACT,
    OUTPUT,
    STATIC_VERSION,
    VERSION,
    flatten_node,
    synapse_node,
)
from toolchain.canonical import canonical_json, sealed
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse

if TYPE_CHECKING:
    import nir


def as_graph(program: IntProgram) -> nir.NIRGraph:
    """The program as a graph: one node per synapse, and one per population with neurons."""
    import nir

    nodes: dict[str, Any] = {INPUT: nir.Input({"input": np.array(program.input.shape)})}
    edges: list[tuple[str, str]] = []
    for population in program.populations:
        target = _add_neurons(population, nodes, output_node(program, population.name))
        for index, synapse in enumerate(population.synapses):
            assert isinstance(synapse, ConvSynapse | DenseSynapse)
            shape = program.source_shape(synapse.source)
            source, node = synapse.source, synapse_node(population.name, index)
            if isinstance(synapse, DenseSynapse) and len(shape) > 1:
                flatten = flatten_node(population.name, index)
                _put(nodes, flatten, nir.Flatten({"input": np.array(shape)}, 0, -1))
                edges.append((source, flatten))
                source = flatten
            bias = _bias(population, program) if index == 0 else np.zeros(population.shape[0])
            _put(nodes, node, _synapse(synapse, shape, bias))
            edges += [(source, node), (node, target)]
    version = VERSION if program.input.per_step else STATIC_VERSION
    header = {"version": version, **program.structure(), "provenance": program.provenance}
    header[HASH] = program.hash
    header["initial_potentials"] = {
        p.name: p.neuron.initial_potential.tolist()
        for p in program.populations
        if isinstance(p.neuron, IntegrateAndFire)
    }
    return nir.NIRGraph(nodes, edges, metadata={KEY: canonical_json(sealed(header))})


def output_node(program: IntProgram, readout: str) -> str:
    """Name of a readout's output node: "output", unless there are several or a layer has it."""
    taken = any(p.name == OUTPUT for p in program.spiking)
    return OUTPUT if len(program.readouts) == 1 and not taken else readout


def _put(nodes: dict[str, Any], name: str, node: Any) -> None:
    """Add a node; raises TargetError if another has this name."""
    if name in nodes:
        raise TargetError(
            "a layer is called what a node of the graph is called",
            node=name,
            remedy="rename the layer: the graph has nodes NAME:synapseK and NAME:flattenK",
        )
    nodes[name] = node


def _add_neurons(population: Population, nodes: dict[str, Any], output: str) -> str:
    """Add the node that takes a population's currents; `output` if it is a readout."""
    import nir

    shape, neuron = population.shape, population.neuron
    if isinstance(neuron, Readout):
        _put(nodes, output, nir.Output({"output": np.array(shape)}))
        return output
    if isinstance(neuron, IntegrateAndFire):
        theta = np.broadcast_to(population.per_channel(neuron.threshold), (1, *shape))[0]
        above = _float32(population.name, 2 * theta - 1) / np.float32(2)
        ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        _put(nodes, population.name, nir.IF(ones, above, zeros))
    else:
        _put(nodes, population.name, nir.Scale(np.ones(shape, np.float32)))
    return population.name


def _bias(population: Population, program: IntProgram) -> np.ndarray:
    """Bias (C,); for one step it includes the initial potential."""
    neuron = population.neuron
    if isinstance(neuron, IntegrateAndFire) and program.schedule.num_steps == 1:
        return population.bias.astype(np.int64) + neuron.initial_potential
    return population.bias.astype(np.int64)


def _synapse(
    synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...], bias: np.ndarray
) -> nir.Conv2d | nir.Affine:
    import nir

    weight = synapse.weight.astype(np.int64) << synapse.weight_exponent
    exact = _float32(f"synapse from {synapse.source}", weight)
    offset = _float32(f"synapse from {synapse.source}", bias)
    if isinstance(synapse, DenseSynapse):
        return nir.Affine(exact, offset)
    if not synapse.is_even:
        raise TargetError(
            "NIR has no transposed convolution, and pads both sides alike",
            node=f"synapse from {synapse.source}",
            found=", ".join(f"{what} {pair}" for what, pair in synapse.extras().items()),
            allowed="convolutions without upsampling",
            remedy="a .net file of this project holds it",
        )
    plane = (int(source[1]), int(source[2]))
    how = (synapse.stride, synapse.padding, synapse.dilation, 1)
    return nir.Conv2d(plane, ungrouped(exact, synapse.groups), *how, offset)


def ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights (C_out, C_in / groups, ...) of a grouped convolution as (C_out, C_in, ...).

    NIR 1.0 takes a convolution's channels from its weights and ignores its groups.
    """
    if groups == 1:
        return weight
    c_out, c_in = weight.shape[:2]
    whole = np.zeros((c_out, c_in * groups, *weight.shape[2:]), weight.dtype)
    for group, rows in enumerate(np.split(np.arange(c_out), groups)):
        whole[rows, group * c_in : (group + 1) * c_in] = weight[rows]
    return whole


def _float32(node: str, values: np.ndarray) -> np.ndarray:
    """Integers as float32; raises TargetError if that would round."""
    if (np.abs(values) > LARGEST_EXACT).any():
        raise TargetError(
            "numbers this large are not exact in NIR's float32",
            node=node,
            found=int(np.abs(values).max()),
            allowed=LARGEST_EXACT,
            remedy="convert with fewer weight bits",
        )
    return values.astype(np.float32)
