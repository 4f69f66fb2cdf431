"""Reads a `.net` file back into an integer program, checking every dataset on the way."""

from __future__ import annotations

import json
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
)
from toolchain.errors import FormatError, SpikeportError
from toolchain.neurons import NEURONS, Neuron, Readout
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Pair, Synapse


def read_net(path: Path) -> IntProgram:
    """Read and check the file at `path`.

    Raises
    ------
    FormatError
        If it is missing, truncated, not HDF5, of another version, lacks a dataset, holds one of
        the wrong type or shape, or if its content is not what its hash says.
    """
    if not path.is_file():
        raise FormatError("no such file", node=str(path))
    try:
        with h5py.File(path, "r", locking=FILE_LOCKING) as file:
            return _read(_Group(file, str(path)))
    except OSError as error:
        raise FormatError(
            "not a readable HDF5 file (truncated, or another format)",
            node=str(path),
            found=str(error).splitlines()[0],
            remedy="export it again",
        ) from error


class _Group:
    """An HDF5 group whose look-ups check kind, type and shape, and name what is wrong."""

    def __init__(self, group: h5py.Group, file: str) -> None:
        self._group = group
        self._file = file

    def where(self, name: str = "") -> str:
        return f"{self._file}:{self._group.name.rstrip('/')}/{name}".rstrip("/")

    def _get(self, name: str, kind: type) -> Any:
        link = self._group.get(name, getlink=True)
        if link is None:
            raise FormatError(
                "is missing",
                node=self.where(name),
                found=", ".join(self._group) or "nothing",
                remedy="export it again; for files of lava-dl itself use the stock loader",
            )
        if not isinstance(link, h5py.HardLink):
            raise FormatError("is a link to elsewhere", node=self.where(name))
        item = self._group[name]
        if not isinstance(item, kind):
            raise FormatError("is of the wrong kind", node=self.where(name), found=item)
        return item

    def group(self, name: str) -> _Group:
        return _Group(self._get(name, h5py.Group), self._file)

    def names(self) -> list[str]:
        return list(self._group)

    def text(self, name: str) -> str:
        value = self._get(name, h5py.Dataset)
        data = value[0] if value.shape == (1,) else value[()]
        if not isinstance(data, bytes):
            raise FormatError("is not a string", node=self.where(name), found=value.dtype)
        return data.decode()

    def json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self.text(name))
        except ValueError as error:
            raise FormatError("is not JSON", node=self.where(name), found=error) from error
        if not isinstance(value, dict):
            raise FormatError("is not a JSON object", node=self.where(name))
        return value

    def integers(self, name: str, axes: int) -> np.ndarray:
        dataset = self._get(name, h5py.Dataset)
        if dataset.dtype.kind not in "iu" or len(dataset.shape) != axes:
            raise FormatError(
                f"must hold integers with {axes} axes",
                node=self.where(name),
                found=f"{dataset.dtype} {dataset.shape}",
            )
        return np.asarray(dataset[()]).astype(np.int64)

    def integer(self, name: str) -> int:
        return int(self.integers(name, 0))

    def real(self, name: str) -> float:
        dataset = self._get(name, h5py.Dataset)
        if dataset.dtype.kind != "f" or dataset.shape != ():
            raise FormatError("must be one float", node=self.where(name), found=dataset.dtype)
        return float(dataset[()])

    def pair(self, name: str) -> Pair:
        values = self.integers(name, 1)
        if len(values) != 2:
            raise FormatError("must hold two integers", node=self.where(name), found=len(values))
        return (int(values[0]), int(values[1]))


def _read(root: _Group) -> IntProgram:
    if OWN not in root.names():
        raise FormatError(
            "is not a file of this project",
            node=root.where(),
            found=", ".join(root.names()) or "nothing",
            allowed=f"a group '{OWN}' (FORMAT.md)",
            remedy="files of lava-dl itself are read by lava.lib.dl.netx",
        )
    own = root.group(OWN)
    version = own.integer("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            "unknown format version",
            node=own.where("format_version"),
            found=version,
            allowed=FORMAT_VERSION,
            remedy="use the version of this project that wrote it, or convert again",
        )
    header = own.json("header")
    try:
        program = IntProgram(
            name=str(header["name"]),
            input=InputQuantizer.from_description(header["input"]),
            populations=_read_layers(root.group(LAYERS), header),
            schedule=Schedule(int(header["wake_steps"]), int(header["sleep_steps"])),
            weight_bits=int(header["weight_bits"]),
            state_bits=int(header["state_bits"]),
            watch_ranges=bool(header["watch_ranges"]),
            provenance=own.json("provenance"),
        )
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, SpikeportError) as error:
        raise FormatError(
            "the file does not describe a program",
            node=root.where(),
            found=f"{type(error).__name__}: {error}",
        ) from error
    if program.hash != own.text("program_hash"):
        raise FormatError(
            "the content was changed after it was written",
            node=own.where("program_hash"),
            found=program.hash,
            allowed=own.text("program_hash"),
            remedy="convert again; a changed program needs a new file",
        )
    return program


def _read_layers(layers: _Group, header: dict[str, Any]) -> tuple[Population, ...]:
    expected = [str(i) for i in range(len(layers.names()))]
    if sorted(layers.names(), key=lambda n: (len(n), n)) != expected:
        raise FormatError("layers must be numbered from 0", node=layers.where())
    first = layers.group("0")
    if first.text("type") != INPUT:
        raise FormatError("the first layer must be the input", node=first.where("type"))
    if first.integers("shape", 1).tolist() != list(header["input"]["shape"]):
        raise FormatError("the input shape differs from the header's", node=first.where("shape"))
    populations: list[Population] = []
    source, flattened = "input", False
    for name in expected[1:]:
        group = layers.group(name)
        kind = group.text("type")
        if kind == FLATTEN:
            flattened = True
            continue
        population = _read_population(group, kind, source)
        source_axes = len(populations[-1].shape if populations else header["input"]["shape"])
        if flattened != (kind == DENSE and source_axes > 1):
            raise FormatError("a flatten is missing or misplaced", node=group.where())
        flattened = False
        populations.append(population)
        source = population.name
    return tuple(populations)


def _read_population(group: _Group, kind: str, source: str) -> Population:
    own, neuron = group.group(OWN), group.group("neuron")
    exponent = own.integer("weight_exponent")
    synapse: Synapse
    if kind == CONV:
        synapse = ConvSynapse(
            source,
            group.integers("weight", 4),
            group.pair("stride"),
            group.pair("padding"),
            group.pair("dilation"),
            group.integer("groups"),
            exponent,
        )
    elif kind == DENSE:
        synapse = DenseSynapse(source, group.integers("weight", 2), exponent)
    else:
        raise FormatError(
            "unknown layer type",
            node=group.where("type"),
            found=kind,
            allowed=", ".join((INPUT, CONV, DENSE, FLATTEN)),
        )
    shape = tuple(int(s) for s in group.integers("shape", 1))
    return Population(
        own.text("name"), shape, (synapse,), group.integers("bias", 1), _read_neuron(neuron, own)
    )


def _read_neuron(neuron: _Group, own: _Group) -> Neuron:
    kind = NEURONS.get(neuron.text("type"))
    if kind is None:
        raise FormatError(
            "unknown neuron type",
            node=neuron.where("type"),
            found=neuron.text("type"),
            allowed=", ".join(NEURONS),
        )
    if kind is Readout:
        return Readout(own.real("scale"))
    return kind(neuron.integers("threshold", 1), neuron.integers("initial_potential", 1))  # type: ignore[call-arg,arg-type]
