"""Writer of an integer program as a `.net` file: write, read back, compare, rename."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import singledispatch
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from exports.hdf5 import new_hdf5
from exports.netx.layout import (
    BRANCHES_VERSION,
    CONV,
    DENSE,
    FLATTEN,
    FORMAT_VERSION,
    INPUT,
    LAYERS,
    OVERHANG_VERSION,
    OWN,
    POOL,
    SEQUENCES_VERSION,
    SIMULATION,
    STOCK_STRING,
    SYNAPSES,
    UPSAMPLING_VERSION,
)
from exports.netx.reader import difference
from exports.netx.seal import write_seal
from toolchain.canonical import canonical_json
from toolchain.errors import FormatError
from toolchain.program.int_program import IntProgram, Population
from toolchain.program.neurons import GradedIntegrateAndFire
from toolchain.program.range_certificate import range_certificate
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Synapse, WindowSynapse


def write_net(program: IntProgram, path: Path | str) -> None:
    """Write `program` to `path`; no partial file remains after a failure.

    Raises
    ------
    OutputError
        If the path cannot be written.
    FormatError
        If the file read back is not the program, which is a bug.
    """

    def fill(image: BytesIO) -> None:
        with h5py.File(image, "w") as file:
            _write(program, file)

    with new_hdf5(Path(path), fill) as temporary:
        different = difference(temporary, program)
        if different:
            raise FormatError(
                "the file read back is not the program written",
                node=str(path),
                found=f"a difference in {different}",
            )


def _write(program: IntProgram, file: h5py.File) -> None:
    # The hash takes as long as writing, and other threads can run meanwhile.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: program.hash)
        write_layers(program, file, _write_population)
        certificate = canonical_json(range_certificate(program))
    own = file.create_group(OWN)
    own["format_version"] = _version(program)
    own["program_hash"] = program.hash
    own["header"] = canonical_json(_header(program))
    own["provenance"] = program.provenance_json()
    own["certificate"] = certificate
    write_seal(file)


def _version(program: IntProgram) -> int:
    """The lowest version that holds the program, so that older readers read what they can."""
    if any(isinstance(p.neuron, GradedIntegrateAndFire) for p in program.populations):
        return FORMAT_VERSION
    if program.input.per_step:
        return SEQUENCES_VERSION
    synapses = [s for p in program.populations for s in p.synapses]
    uneven = {type(s) for s in synapses if not (isinstance(s, DenseSynapse) or s.is_even)}
    if ConvSynapse in uneven:
        return UPSAMPLING_VERSION
    return OVERHANG_VERSION if uneven else BRANCHES_VERSION


def write_layers(
    program: IntProgram, file: h5py.File, write: Callable[[h5py.Group, Population], None]
) -> None:
    """Write the stock layout: numbered layers, and a flatten before a dense layer on images."""
    layers = file.create_group(LAYERS)
    group = layers.create_group("0")
    write_string(group, "type", INPUT)
    group["shape"] = np.array(program.input.shape, np.int64)
    for population in program.populations:
        first = population.synapses[0]
        if isinstance(first, DenseSynapse) and len(program.source_shape(first.source)) > 1:
            write_string(layers.create_group(str(len(layers))), "type", FLATTEN)
        write(layers.create_group(str(len(layers))), population)
    file[f"{SIMULATION}/Ts"] = 1
    file[f"{SIMULATION}/tSample"] = program.schedule.num_steps


def _header(program: IntProgram) -> dict[str, Any]:
    """Fields of the program as a whole; layers have their own."""
    structure = program.structure()
    return {k: v for k, v in structure.items() if k != "populations"}


def _write_population(group: h5py.Group, population: Population) -> None:
    first, *further = population.synapses
    write_synapse(group, population, first)
    own = group.create_group(OWN)
    own["name"] = population.name
    own["source"] = first.source
    if not isinstance(first, WindowSynapse):
        group["bias"] = population.bias
        own["weight_exponent"] = first.weight_exponent
    for index, synapse in enumerate(further, 1):
        one = own.create_group(f"{SYNAPSES}/{index}")
        one["kind"] = _layer_type(synapse)
        one["source"] = synapse.source
        if not isinstance(synapse, WindowSynapse):
            one["weight_exponent"] = synapse.weight_exponent
        _write_connection(synapse, one)
    neuron = group.create_group("neuron")
    write_string(neuron, "type", population.neuron.kind)
    for name, array in population.neuron.arrays().items():
        neuron[name] = array
    for name, number in population.neuron.integers().items():
        neuron[name] = number
    for name, value in population.neuron.reals().items():
        own[name] = np.float64(value)


def write_synapse(group: h5py.Group, population: Population, synapse: Synapse) -> None:
    """Write the datasets of stock netx: type, shape, weight, and a convolution's geometry."""
    write_string(group, "type", _layer_type(synapse))
    group["shape"] = np.array(population.shape, np.int64)
    _write_connection(synapse, group)


def _layer_type(synapse: Synapse) -> str:
    types = {ConvSynapse: CONV, DenseSynapse: DENSE, WindowSynapse: POOL}
    return types[type(synapse)]


@singledispatch
def _write_connection(synapse: object, group: h5py.Group) -> None:
    """Write weights and geometry of one synapse."""
    raise FormatError("the format has no such synapse", found=type(synapse).__name__)


@_write_connection.register
def _(synapse: ConvSynapse, group: h5py.Group) -> None:
    group["weight"] = synapse.weight.astype(smallest_int(synapse.weight))
    _write_geometry(synapse, group)
    group["groups"] = synapse.groups


@_write_connection.register
def _(synapse: DenseSynapse, group: h5py.Group) -> None:
    group["weight"] = synapse.weight.astype(smallest_int(synapse.weight))


@_write_connection.register
def _(synapse: WindowSynapse, group: h5py.Group) -> None:
    group["kernel"] = np.array(synapse.kernel, np.int64)
    _write_geometry(synapse, group)


def _write_geometry(synapse: ConvSynapse | WindowSynapse, group: h5py.Group) -> None:
    group["stride"] = np.array(synapse.stride, np.int64)
    group["padding"] = np.array(synapse.padding, np.int64)
    group["dilation"] = np.array(synapse.dilation, np.int64)
    for name, pair in synapse.extras().items():
        group[name] = np.array(pair, np.int64)


def smallest_int(values: np.ndarray) -> type[np.signedinteger[Any]]:
    """The narrowest signed type that holds all values."""
    for dtype in (np.int8, np.int16):
        info = np.iinfo(dtype)
        if values.size == 0 or (info.min <= values.min() and values.max() <= info.max):
            return dtype
    return np.int32


def write_string(group: h5py.Group, name: str, text: str) -> None:
    """Write a string as lava-dl does: S10, shape (1,)."""
    encoded = text.encode("ascii")
    if len(encoded) > int(STOCK_STRING[1:]):
        raise FormatError("a string is longer than the format allows", found=text)
    group.create_dataset(name, (1,), STOCK_STRING, np.array([encoded], STOCK_STRING))
