"""Reader of a program from a NIR graph that this project wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exports.hdf5 import DAMAGED
from exports.nir.foreign import open_graph
from exports.nir.graph import as_graph
from exports.nir.layout import HASH, KEY, STATIC_VERSION, VERSION, synapse_node
from toolchain.canonical import SEAL, check_seal
from toolchain.documents import parse_json
from toolchain.errors import FormatError, SpikeportError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Neuron, Readout, Relay
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse

if TYPE_CHECKING:
    import nir


def read_nir(path: Path | str, *, known: bool = False) -> IntProgram:
    """The program in the NIR file at `path`, integer by integer; `known` as in `hdf5.opened`.

    Raises
    ------
    FormatError
        If the file is missing, not a NIR file, lacks this project's metadata, if graph and metadata
        contradict each other, or if either does not match its hash.
    """
    graph = open_graph(Path(path), known=known)
    if KEY not in graph.metadata:
        raise FormatError(
            "this graph was not written by this project",
            node=str(path),
            found=", ".join(sorted({type(n).__name__ for n in graph.nodes.values()})),
            allowed=f"metadata '{KEY}'",
            remedy="`read_foreign_nir` reads graphs of other tools, to be converted",
        )
    try:
        header = parse_json(graph.metadata[KEY])
        if header["version"] not in (STATIC_VERSION, VERSION):
            raise FormatError(
                "unknown version",
                node=str(path),
                found=header["version"],
                allowed=f"{STATIC_VERSION}, {VERSION}",
            )
        program = _program(header, graph)
        _check_graph(graph, as_graph(program))
        if SEAL in header:
            check_seal(header, FormatError, str(path), "export it again")
    except FormatError:
        raise
    except (*DAMAGED, SpikeportError) as error:
        raise FormatError(
            "graph and metadata do not describe a program",
            node=str(path),
            found=f"{type(error).__name__}: {error}",
        ) from error
    if program.hash != header.get(HASH, program.hash):
        raise FormatError(
            "the content was changed after it was written",
            node=str(path),
            found=program.hash,
            allowed=header[HASH],
            remedy="export it again; other tools run the changed graph, this project does not",
        )
    return program


def has_hash(path: Path | str) -> bool:
    """Whether the file of this project at `path` contains its program's hash; older ones do not.

    Raises
    ------
    FormatError
        If the file is missing or not a NIR file of this project.
    """
    graph = open_graph(Path(path), known=True)
    return HASH in parse_json(graph.metadata[KEY])


def _check_graph(found: nir.NIRGraph, expected: nir.NIRGraph) -> None:
    """Raise ValueError unless both graphs are equal, apart from their metadata."""
    if sorted(found.edges) != sorted(expected.edges):
        raise ValueError("the edges are not those of the program")
    for name in {**found.nodes, **expected.nodes}:
        if name not in found.nodes or name not in expected.nodes:
            raise ValueError(f"{name}: the nodes are not those of the program")
        one, other = found.nodes[name].to_dict(), expected.nodes[name].to_dict()
        for key in {**one, **other}:
            if not _equal(one.get(key), other.get(key)):
                raise ValueError(f"{name}: {key} is not that of the program")


def _equal(one: Any, other: Any) -> bool:
    """Whether two values of a node are equal; a missing value is None."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(v, other[k]) for k, v in one.items())
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def _program(header: dict[str, Any], graph: nir.NIRGraph) -> IntProgram:
    steps = int(header["wake_steps"]) + int(header["sleep_steps"])
    populations = tuple(
        _population(fields, graph, header["initial_potentials"], one_step=steps == 1)
        for fields in header["populations"]
    )
    return IntProgram(
        name=str(header["name"]),
        input=InputQuantizer.from_description(header["input"]),
        populations=populations,
        schedule=Schedule(int(header["wake_steps"]), int(header["sleep_steps"])),
        weight_bits=int(header["weight_bits"]),
        state_bits=int(header["state_bits"]),
        watch_ranges=bool(header["watch_ranges"]),
        provenance=dict(header["provenance"]),
    )


def _population(
    fields: dict[str, Any],
    graph: nir.NIRGraph,
    initial_potentials: dict[str, list[int]],
    *,
    one_step: bool,
) -> Population:
    name, shape = str(fields["name"]), tuple(int(s) for s in fields["shape"])
    first = graph.nodes[synapse_node(name, 0)]
    bias = _whole(first.bias)
    neuron: Neuron
    if fields["neuron"] == IntegrateAndFire.kind:
        start = np.array(initial_potentials[name], np.int64)
        above = graph.nodes[name].v_threshold.reshape(shape[0], -1)
        if (above != above[:, :1]).any():
            raise ValueError(f"{name}: thresholds differ within a channel")
        neuron = IntegrateAndFire(_whole(above[:, 0] + 0.5), start)
        bias = bias - start if one_step else bias
    elif fields["neuron"] == Readout.kind:
        neuron = Readout(float(fields["scale"]))
    elif fields["neuron"] == Relay.kind:
        neuron = Relay()
    else:
        raise ValueError(f"{name}: no neuron {fields['neuron']} in NIR")
    synapses = tuple(
        _synapse(described, graph.nodes[synapse_node(name, index)])
        for index, described in enumerate(fields["synapses"])
    )
    return Population(name, shape, synapses, bias, neuron)


def _synapse(described: dict[str, Any], node: Any) -> Synapse:
    exponent, source = int(described["weight_exponent"]), str(described["source"])
    shifted = _whole(node.weight)
    weight = shifted >> exponent
    if (weight << exponent != shifted).any():
        raise ValueError(f"weights from {source} are no multiples of 2^{exponent}")
    if described["kind"] == "dense":
        return DenseSynapse(source, weight, exponent)
    groups = int(described["groups"])
    weight = _grouped(weight, groups)
    pairs = (tuple(int(v) for v in getattr(node, k)) for k in ("stride", "padding", "dilation"))
    stride, padding, dilation = pairs
    return ConvSynapse(
        source,
        weight,
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (dilation[0], dilation[1]),
        groups,
        exponent,
    )


def _grouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights (C_out, C_in, ...) as (C_out, C_in / groups, ...); ValueError if others are not 0."""
    if groups == 1:
        return weight
    c_in = weight.shape[1] // groups
    rows = np.split(np.arange(len(weight)), groups)
    found = np.concatenate([weight[r, g * c_in : (g + 1) * c_in] for g, r in enumerate(rows)])
    if np.count_nonzero(found) != np.count_nonzero(weight):
        raise ValueError("weights between groups")
    return found


def _whole(values: np.ndarray) -> np.ndarray:
    """Whole numbers as int64; raises ValueError for others."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"numbers of type {values.dtype}")
    whole = np.rint(values).astype(np.int64)
    if (whole != values).any():
        raise ValueError("numbers that are not whole")
    return whole
