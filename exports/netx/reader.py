"""Reader of a `.net` file into an integer program, with a check of every dataset."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from exports.netx.group import Group
from exports.netx.layout import (
    BRANCHES_VERSION,
    CHAINS_VERSION,
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
    SYNAPSES,
    UPSAMPLING_VERSION,
)
from exports.netx.opened import opened
from exports.netx.seal import checked_own
from exports.netx.stock_loader import way_to_run
from toolchain.canonical import sealed
from toolchain.errors import FormatError, SpikeportError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import (
    NEURONS,
    GradedIntegrateAndFire,
    LIPool,
    Neuron,
    Relay,
)
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Pair, Synapse, WindowSynapse

MOST_NEURONS = 1 << 26
"""Most neurons per layer; VGG16 has 3.2 million at 224 pixels, a Loihi 2 chip one million."""
MOST_AXES = 3


def read_net(path: Path | str) -> IntProgram:
    """Read and check the program in the file at `path`.

    Raises
    ------
    FormatError
        If the file is missing, truncated, not HDF5, of another version, lacks a dataset, has one of
        the wrong type or shape, or if its content does not match its hashes.
    """
    with opened(Path(path)) as root:
        return program_in(root)


def program_in(root: Group) -> IntProgram:
    """The program in an open file, checked against its hashes; raises FormatError as `read_net`."""
    program, own = _read(root), root.group(OWN)
    if program.hash != own.text("program_hash"):
        raise FormatError(
            "the content was changed after it was written",
            node=own.where("program_hash"),
            found=program.hash,
            allowed=own.text("program_hash"),
            remedy="convert again; a changed program needs a new file",
        )
    _check_simulation(root.group(SIMULATION), program.schedule)
    checked_own(root)
    return program


def difference(path: Path, program: IntProgram) -> str | None:
    """Name of the first value in the file at `path` that differs from `program`; None if equal.

    This process must have written the file. The check is stricter and faster than comparing hashes.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    with opened(path, known=True) as root:
        found = _read(root)
        arrays, expected = found.arrays(), program.arrays()
        if found.structure() != program.structure() or list(arrays) != list(expected):
            return "the header"
        if found.provenance_json() != program.provenance_json():
            return "the provenance"
        if root.group(OWN).text("program_hash") != program.hash:
            return "the hash"
        texts = root.group(OWN).texts()
        if texts != sealed(texts):
            return "the texts"
    return next((n for n, array in expected.items() if not np.array_equal(arrays[n], array)), None)


def _read(root: Group) -> IntProgram:
    """The program in a file, without a check of its hash."""
    if OWN not in root.names():
        raise FormatError(
            "is not a file of this project",
            node=root.where(),
            found=", ".join(root.names()) or "nothing",
            allowed=f"a group '{OWN}' (FORMAT.md)",
            remedy=way_to_run(root),
        )
    own = root.group(OWN)
    version = own.integer("format_version")
    known = (
        CHAINS_VERSION,
        BRANCHES_VERSION,
        OVERHANG_VERSION,
        UPSAMPLING_VERSION,
        SEQUENCES_VERSION,
        FORMAT_VERSION,
    )
    if version not in known:
        raise FormatError(
            "unknown format version",
            node=own.where("format_version"),
            found=version,
            allowed=", ".join(map(str, known)),
            remedy="use the version of this project that wrote it, or convert again",
        )
    header = own.json("header")
    try:
        return IntProgram(
            name=str(header["name"]),
            input=_read_quantizer(header["input"], version),
            populations=_read_layers(root.group(LAYERS), header, version),
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


def _read_quantizer(fields: dict[str, Any], version: int) -> InputQuantizer:
    known = {k: v for k, v in fields.items() if k != "per_step" or version > UPSAMPLING_VERSION}
    return InputQuantizer.from_description(known)


def _check_simulation(group: Group, schedule: Schedule) -> None:
    """Check the time settings of stock netx against the program's own."""
    found = (group.integer("Ts"), group.integer("tSample"))
    if found != (1, schedule.num_steps):
        raise FormatError(
            "Ts and tSample are not those of the program",
            node=group.where(),
            found=found,
            allowed=(1, schedule.num_steps),
            remedy="convert again; a changed program needs a new file",
        )


def _read_layers(layers: Group, header: dict[str, Any], version: int) -> tuple[Population, ...]:
    expected = layers.numbered("layers")
    first = layers.group("0")
    if first.text("type") != INPUT:
        raise FormatError("the first layer must be the input", node=first.where("type"))
    if list(_shape(first)) != list(header["input"]["shape"]):
        raise FormatError("the input shape differs from the header's", node=first.where("shape"))
    axes = {INPUT: len(header["input"]["shape"])}
    populations: list[Population] = []
    before, flattened = INPUT, False
    for name in expected[1:]:
        group = layers.group(name)
        kind = group.text("type")
        if kind == FLATTEN:
            if flattened:
                raise FormatError("a flatten is missing or misplaced", node=group.where())
            flattened = True
            continue
        population = _read_population(group, kind, _Sources(tuple(axes), before, version))
        if population.name in axes:
            raise FormatError(
                "two layers have the same name",
                node=group.where(f"{OWN}/name"),
                found=population.name,
            )
        if flattened != (kind == DENSE and axes[population.synapses[0].source] > 1):
            raise FormatError("a flatten is missing or misplaced", node=group.where())
        flattened = False
        populations.append(population)
        before, axes[population.name] = population.name, len(population.shape)
    if flattened:
        raise FormatError("a flatten is missing or misplaced", node=layers.where())
    return tuple(populations)


def _shape(group: Group) -> tuple[int, ...]:
    """A layer's shape; it is checked here, since no other data in the file bound it."""
    shape = tuple(int(s) for s in group.integers("shape", 1))
    if prod(shape) > MOST_NEURONS or len(shape) > MOST_AXES:
        raise FormatError(
            "a layer larger than any chip",
            node=group.where("shape"),
            found=shape,
            allowed=f"{MOST_NEURONS:,} neurons",
        )
    return shape


@dataclass(frozen=True)
class _Sources:
    """Layers from which a layer may take its input.

    Attributes
    ----------
    names:
        Names of the input and of all previous layers.
    before:
        Name of the previous layer, the source of every layer of version 1.
    """

    names: tuple[str, ...]
    before: str
    version: int

    def of(self, group: Group) -> str:
        """The source named in `group`, a layer's group or one of its further synapses."""
        if self.version == CHAINS_VERSION:
            return self.before
        source = group.text("source")
        if source not in self.names:
            raise FormatError(
                "a source must be the input or an earlier layer",
                node=group.where("source"),
                found=source,
                allowed=", ".join(self.names),
            )
        return source


def _read_population(group: Group, kind: str, sources: _Sources) -> Population:
    own, neuron_group = group.group(OWN), group.group("neuron")
    known = (*WEIGHTED,) if sources.version == CHAINS_VERSION else (*WEIGHTED, POOL)
    if kind not in known:
        raise FormatError(
            "unknown layer type",
            node=group.where("type"),
            found=kind,
            allowed=", ".join((INPUT, *known, FLATTEN)),
        )
    try:
        name = own.text("name")
        shape = _shape(group)
        neuron = _read_neuron(neuron_group, own, sources.version)
        if kind == POOL:
            synapses: tuple[Synapse, ...] = (_read_window(group, sources),)
            bias = np.zeros(shape[0], np.int64)
        else:
            exponent = own.integer("weight_exponent")
            synapses = (WEIGHTED[kind](sources.of(own), group, exponent, sources.version),)
            bias = group.integers("bias", 1)
        if SYNAPSES in own.names():
            synapses += _read_further(own.group(SYNAPSES), sources)
        return Population(name, shape, synapses, bias, neuron)
    except FormatError:
        raise
    except (IndexError, ValueError, SpikeportError) as error:
        raise FormatError(
            "does not describe a layer",
            node=group.where(),
            found=f"{type(error).__name__}: {error}",
        ) from error


def _read_further(group: Group, sources: _Sources) -> tuple[Synapse, ...]:
    if sources.version == CHAINS_VERSION or not group.names():
        raise FormatError("further synapses are out of place here", node=group.where())
    synapses = []
    for name in group.numbered("further synapses", 1):
        one = group.group(name)
        kind = one.text("kind")
        if kind not in WEIGHTED:
            raise FormatError(
                "unknown kind of synapse",
                node=one.where("kind"),
                found=kind,
                allowed=", ".join(WEIGHTED),
            )
        exponent = one.integer("weight_exponent")
        synapses.append(WEIGHTED[kind](sources.of(one), one, exponent, sources.version))
    return tuple(synapses)


def _read_conv(source: str, group: Group, exponent: int, version: int) -> Synapse:
    return ConvSynapse(
        source,
        group.integers("weight", 4),
        group.pair("stride"),
        group.pair("padding"),
        group.pair("dilation"),
        group.integer("groups"),
        exponent,
        **_extras(group, ("upsample", "overhang") if version > OVERHANG_VERSION else ()),
    )


def _read_dense(source: str, group: Group, exponent: int, version: int) -> Synapse:
    return DenseSynapse(source, group.integers("weight", 2), exponent)


def _read_window(group: Group, sources: _Sources) -> Synapse:
    known = ("overhang",) if sources.version > BRANCHES_VERSION else ()
    return WindowSynapse(
        sources.of(group.group(OWN)),
        group.pair("kernel"),
        group.pair("stride"),
        group.pair("padding"),
        group.pair("dilation"),
        **_extras(group, known),
    )


def _extras(group: Group, known: tuple[str, ...]) -> dict[str, Pair]:
    """The pairs of a geometry that are there only where they are not neutral."""
    return {name: group.pair(name) for name in known if name in group.names()}


WEIGHTED = {CONV: _read_conv, DENSE: _read_dense}
"""Readers of synapses with weights, by layer type."""


def _read_neuron(neuron: Group, own: Group, version: int) -> Neuron:
    newer: tuple[type[Neuron], ...] = ()
    if version < FORMAT_VERSION:
        newer = (GradedIntegrateAndFire,)
    if version == CHAINS_VERSION:
        newer += (LIPool, Relay)
    known = {kind: cell for kind, cell in NEURONS.items() if cell not in newer}
    kind = neuron.text("type")
    if kind not in known:
        raise FormatError(
            "unknown neuron type",
            node=neuron.where("type"),
            found=kind,
            allowed=", ".join(known),
        )
    cell = known[kind]
    arrays = {name: neuron.integers(name, 1) for name in cell.array_names}
    numbers = {name: neuron.integer(name) for name in cell.integer_names}
    return cell(**arrays, **numbers, **{name: own.real(name) for name in cell.real_names})
