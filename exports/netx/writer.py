"""Writes an integer program as a `.net` file: temporary file, read back, compare, rename."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exports.netx.layout import (
    CONV,
    DENSE,
    FILE_LOCKING,
    FLATTEN,
    FORMAT_VERSION,
    INPUT,
    LAYERS,
    OWN,
    STOCK_STRING,
)
from exports.netx.reader import read_net
from toolchain.canonical import canonical_json
from toolchain.errors import FormatError, TargetError
from toolchain.files import atomic_path
from toolchain.neurons import Readout
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.synapse import ConvSynapse, DenseSynapse


def write_net(program: IntProgram, path: Path) -> None:
    """Write `program` to `path`; nothing is left behind if anything fails.

    Raises
    ------
    TargetError
        If the program is not a chain of layers, which is all this version can say.
    OutputError
        If the path cannot be written.
    FormatError
        If the file read back is not the program (a bug, never silently accepted).
    """
    check_sequential(program)
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", locking=FILE_LOCKING) as file:
            _write(program, file)
        back = read_net(temporary)
        if back.hash != program.hash or back.provenance_json() != program.provenance_json():
            raise FormatError(
                "the file read back is not the program written",
                node=str(path),
                found=back.hash,
                allowed=program.hash,
            )


def check_sequential(program: IntProgram) -> None:
    """Raise TargetError unless every population takes its input from the one before it only."""
    source = "input"
    for population in program.populations:
        sources = [s.source for s in population.synapses]
        if sources != [source]:
            raise TargetError(
                "this version of the .net format holds chains of layers only",
                node=population.name,
                found=f"fed by {', '.join(sources)}",
                allowed=source,
            )
        source = population.name


def _write(program: IntProgram, file: h5py.File) -> None:
    write_layers(program, file, _write_population)
    own = file.create_group(OWN)
    own["format_version"] = FORMAT_VERSION
    own["program_hash"] = program.hash
    own["header"] = canonical_json(_header(program))
    own["provenance"] = program.provenance_json()


def write_layers(
    program: IntProgram, file: h5py.File, write: Callable[[h5py.Group, Population], None]
) -> None:
    """The stock layout: numbered layers, a flatten in front of a dense layer on images."""
    layers = file.create_group(LAYERS)
    group = layers.create_group("0")
    write_string(group, "type", INPUT)
    group["shape"] = np.array(program.input.shape, np.int64)
    shape = program.input.shape
    for population in program.populations:
        (synapse,) = population.synapses
        if isinstance(synapse, DenseSynapse) and len(shape) > 1:
            write_string(layers.create_group(str(len(layers))), "type", FLATTEN)
        write(layers.create_group(str(len(layers))), population)
        shape = population.shape
    file["simulation/Ts"] = 1
    file["simulation/tSample"] = program.schedule.num_steps


def _header(program: IntProgram) -> dict[str, Any]:
    """What concerns the program as a whole; layers carry their own."""
    structure = program.structure()
    return {k: v for k, v in structure.items() if k != "populations"}


def _write_population(group: h5py.Group, population: Population) -> None:
    (synapse,) = population.synapses
    write_synapse(group, population, synapse)
    group["bias"] = population.bias
    own = group.create_group(OWN)
    own["name"] = population.name
    own["weight_exponent"] = synapse.weight_exponent
    neuron = group.create_group("neuron")
    write_string(neuron, "type", population.neuron.kind)
    if isinstance(population.neuron, Readout):
        own["scale"] = np.float64(population.neuron.scale)
    else:
        neuron["threshold"] = population.neuron.threshold
        neuron["initial_potential"] = population.neuron.initial_potential


def write_synapse(
    group: h5py.Group, population: Population, synapse: ConvSynapse | DenseSynapse
) -> None:
    """The datasets stock netx knows: type, shape, weight, and a convolution's geometry."""
    write_string(group, "type", CONV if isinstance(synapse, ConvSynapse) else DENSE)
    group["shape"] = np.array(population.shape, np.int64)
    group["weight"] = synapse.weight.astype(smallest_int(synapse.weight))
    if isinstance(synapse, ConvSynapse):
        group["stride"] = np.array(synapse.stride, np.int64)
        group["padding"] = np.array(synapse.padding, np.int64)
        group["dilation"] = np.array(synapse.dilation, np.int64)
        group["groups"] = synapse.groups


def smallest_int(values: np.ndarray) -> type[np.signedinteger[Any]]:
    """The narrowest signed type that holds all values."""
    for dtype in (np.int8, np.int16):
        info = np.iinfo(dtype)
        if values.size == 0 or (info.min <= values.min() and values.max() <= info.max):
            return dtype
    return np.int32


def write_string(group: h5py.Group, name: str, text: str) -> None:
    """A string as lava-dl writes it: S10, shape (1,)."""
    encoded = text.encode("ascii")
    if len(encoded) > int(STOCK_STRING[1:]):
        raise FormatError("a string is longer than the format allows", found=text)
    group.create_dataset(name, (1,), STOCK_STRING, np.array([encoded], STOCK_STRING))
