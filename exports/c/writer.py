"""Writes the C source of a program, with samples to test it."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exports.c.checksum import checksums
from exports.c.layers import initialiser, layers_of, smallest
from toolchain.files import atomic_write, make_folder
from toolchain.program.int_program import IntProgram
from toolchain.recording import Recording

FILES = {
    "{}.h": "network.h.jinja",
    "{}.c": "network.c.jinja",
    "{}_test.c": "test.c.jinja",
    "Makefile": "Makefile.jinja",
}
"""Templates by the file they make, whose name may contain that of the network."""


def file_names(program: IntProgram) -> list[str]:
    """The files that `write_c` makes in its folder."""
    return [name.format(identifier(program.name)) for name in FILES]


def write_c(
    program: IntProgram, folder: Path, inputs: np.ndarray, recording: Recording
) -> list[Path]:
    """Write the C source of `program` into `folder`; returns the files.

    Parameters
    ----------
    inputs:
        Graded input spikes of samples to test it with, int (N, *sample_shape).
    recording:
        Their full recording, of another backend.

    Raises
    ------
    TargetError
        If a neuron has no C source, or a sum no type.
    OutputError
        If the folder cannot be written.
    """
    prefix = identifier(program.name)
    readouts = [i for i, p in enumerate(program.populations) if p in program.readouts]
    several = len(readouts) > 1
    shape = program.input.shape
    layers = layers_of(program)
    values = {
        "constants": sum(array.size for layer in layers for array in layer.constants),
        "program": program,
        "prefix": prefix,
        "title": comment(program.name),
        "layers": layers,
        "outputs": {i: f"output_{n}" if several else "output" for n, i in enumerate(readouts)},
        "watched": program.watch_ranges,
        "wake": program.schedule.wake_steps,
        "sleep": program.schedule.sleep_steps,
        "input_size": prod(shape),
        "per_step": program.input.per_step,
        "input_type": smallest(program.input.range),
        "input_range": str(program.input.range),
        "input_order": ", ".join(f"{n} {a}" for n, a in zip(shape, _AXES[len(shape)], strict=True)),
        "inputs": inputs,
        "sums": checksums(program, recording),
        "comment": comment,
        "initialiser": initialiser,
        "scaled": lambda exponent: f"INT64_C({1 << exponent})" if exponent > 30 else 1 << exponent,
    }
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    page.filters["product"] = prod
    texts = [page.get_template(template).render(values) for template in FILES.values()]
    make_folder(folder)
    paths = [folder / name for name in file_names(program)]
    for path, text in zip(paths, texts, strict=True):
        atomic_write(path, text.encode())
    return paths


_AXES = {1: ("features",), 2: ("channels", "places"), 3: ("channels", "rows", "columns")}


def identifier(name: str) -> str:
    """A name of a network as an identifier of C."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return plain if plain and not plain[0].isdigit() else f"net_{plain}".rstrip("_")


def comment(name: str) -> str:
    """A name as text in a comment of C, which it must not end."""
    return name.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *")
