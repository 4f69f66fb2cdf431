"""`export`: a program for other tools and targets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeport.files import as_program
from toolchain.errors import UsageError
from toolchain.files import atomic_write
from toolchain.output_policy import (
    MODULE,
    NETLIST,
    NIR,
    ONNX,
    PARTITION,
    PLAN,
    SOURCE,
    TENSORS,
    Kind,
    check_output,
)

if TYPE_CHECKING:
    from exports.entry import Entry
    from spikeport.samples import Data
    from toolchain.conversion.pipeline import Conversion
    from toolchain.program.int_program import IntProgram

_log = logging.getLogger(__name__)
SAMPLES = 2
"""Samples that test a target's source, where the caller gives none."""


def export(
    program: IntProgram | Conversion | str | Path,
    path: str | Path,
    to: str = "nir",
    *,
    accept_hard_reset: bool = False,
    samples: Data | None = None,
    settled: bool = False,
    target: str | None = None,
    whole_layers: bool = False,
) -> list[Entry]:
    """Write a program for another target; return what the target cannot express, and what follows.

    Parameters
    ----------
    path:
        File of "nir", "onnx", "qonnx" and "partition"; folder of the others.
    to:
        "nir", a NIR graph; "onnx", a graph of integers for onnxruntime; "c", C99 source with a
        test; "spikingjelly", "sinabs" or "snntorch", a torch module with the tool's IF neurons.
        "onnx" and "c" express everything. "qonnx" is the network that CIF settles to, for tools
        that put it onto FPGAs. "partition" says as JSON which core of a chip has which neurons;
        "sanafe" writes the neurons so placed for SANA-FE, which simulates Loihi's energy.
    accept_hard_reset:
        Of "nir": also write networks with several steps, whose neurons other NIR tools reset to
        zero.
    samples:
        Of "c" and "sanafe": samples to run, by default two of seeded noise over the input's range.
    settled:
        Of "onnx": the network that a CIF network settles to, without time.
    target:
        Of "partition" and "sanafe": the chip, a name or a TOML file; by default Loihi 2, and for
        SANA-FE Loihi 1.
    whole_layers:
        Of "partition": chips begin where the spikes of one layer pass, so that Lava can run a chip
        as a block, `Lava("fast", blocks=path)`.

    Raises
    ------
    OutputError
        If a file of another kind has that name.
    TargetError
        If the target cannot express the program.
    UsageError
        If there is no such target, or an argument says nothing to it.
    """
    if to not in TARGETS:
        raise UsageError("no such target", found=to, allowed=", ".join(TARGETS))
    given = {
        "accept_hard_reset": accept_hard_reset or None,
        "samples": samples,
        "settled": settled or None,
        "target": target,
        "whole_layers": whole_layers or None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    check_target(Path(path), to)
    exporter = TARGETS[to]
    for name in options:
        if name not in exporter.options:
            raise UsageError(f"{name}= says nothing to the target {to}")
    return exporter.write(as_program(program), Path(path), **options)


def check_target(path: Path, to: str, inputs: Sequence[Path] = ()) -> None:
    """Raise OutputError, before any work, if a target's file must not be written to `path`."""
    kind = TARGETS[to].kind
    if kind is not None:
        check_output(path, kind, inputs)


def _nir(program: IntProgram, path: Path, *, accept_hard_reset: bool = False) -> list[Entry]:
    from exports.nir import write_nir

    return list(write_nir(program, path, accept_hard_reset=accept_hard_reset))


def _c(program: IntProgram, folder: Path, *, samples: Data | None = None) -> list[Entry]:
    from exports.c import file_names, write_c
    from spikeport.backends import Reference

    _check_files(folder, dict.fromkeys(file_names(program), SOURCE))
    inputs = _inputs(program, samples)
    write_c(program, folder, inputs, Reference().run(program, inputs))
    return []


def _onnx(
    program: IntProgram, path: Path, *, settled: bool = False, qonnx: bool = False
) -> list[Entry]:
    from exports.onnx import write_onnx

    write_onnx(program, path, settled=settled, qonnx=qonnx)
    return []


def _partition(
    program: IntProgram, path: Path, *, target: str = "loihi2", whole_layers: bool = False
) -> list[Entry]:
    from spikeport.chips import cut_chip
    from toolchain.audit.placement import place

    placement = place(program, cut_chip(target), whole_layers=whole_layers)
    for problem in placement.fit.problems():
        _log.warning("%s, %s: %s", problem["level"], problem["layer"], problem["told"])
    atomic_write(path, (json.dumps(placement.describe(), indent=1) + "\n").encode())
    return []


def _sanafe(
    program: IntProgram, folder: Path, *, samples: Data | None = None, target: str = "loihi1"
) -> list[Entry]:
    from exports.sanafe import RUN, file_names, write_sanafe
    from spikeport.chips import cut_chip
    from toolchain.audit.placement import place

    inputs = _inputs(program, samples)
    networks = dict.fromkeys(file_names(len(inputs)), NETLIST)
    _check_files(folder, {RUN: MODULE, "plan.json": PLAN, **networks})
    return write_sanafe(program, place(program, cut_chip(target)).homes(), inputs, folder)


def _simulator(program: IntProgram, folder: Path, *, tool: str) -> list[Entry]:
    from exports.simulators import FILES, write_simulator

    _check_files(folder, dict(zip(FILES, (MODULE, TENSORS), strict=True)))
    write_simulator(program, folder, tool)
    return []


def _check_files(folder: Path, kinds: Mapping[str, Kind]) -> None:
    """Raise OutputError if a file of another kind has one of these names."""
    if folder.exists():
        for name, kind in kinds.items():
            check_output(folder / name, kind)


def _inputs(program: IntProgram, samples: Data | None) -> Any:
    """Graded input spikes of the samples, by default of seeded noise, int32 (N, ...)."""
    import numpy as np

    from spikeport.running import open_for
    from toolchain.learning.data import input_spikes

    if samples is not None:
        return input_spikes(program.input, open_for(program, samples))
    held, shape = program.input.range, (SAMPLES, *program.sample_shape)
    noise = np.random.default_rng(0).integers(held.low, held.high, shape, endpoint=True)
    return noise.astype(np.int32)


@dataclass(frozen=True)
class Target:
    """What writes a target, its options, and the kind of its file; None of a folder."""

    write: Callable[..., list[Entry]]
    options: tuple[str, ...]
    kind: Kind | None = None


TARGETS: Mapping[str, Target] = {
    "nir": Target(_nir, ("accept_hard_reset",), NIR),
    "onnx": Target(_onnx, ("settled",), ONNX),
    "qonnx": Target(partial(_onnx, qonnx=True), (), ONNX),
    "partition": Target(_partition, ("target", "whole_layers"), PARTITION),
    "c": Target(_c, ("samples",)),
    "sanafe": Target(_sanafe, ("samples", "target")),
    **{
        tool: Target(partial(_simulator, tool=tool), ())
        for tool in ("spikingjelly", "sinabs", "snntorch")
    },
}
