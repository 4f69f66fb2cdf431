"""Writes a program as a module of a simulator, with its weights."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors.numpy import save

from exports.simulators.layers import layers_of
from toolchain.files import atomic_write, make_folder
from toolchain.program.int_program import IntProgram

TOOLS = {"spikingjelly": "SpikingJelly", "sinabs": "sinabs", "snntorch": "snnTorch"}
"""Names of the tools, by that of their package and template."""
FILES = ("network.py", "network.safetensors")


def write_simulator(program: IntProgram, folder: Path, tool: str) -> None:
    """Write `FILES` into `folder`; `tool` is one of `TOOLS`.

    Raises
    ------
    TargetError
        If the tool does not have a neuron of the program.
    OutputError
        If the folder cannot be written.
    """
    found = layers_of(program, TOOLS[tool])
    quantizer = program.input
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = page.get_template("network.py.jinja").render(
        title=program.name.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'"),
        tool=tool,
        tool_title=TOOLS[tool],
        version=version("spikeport"),
        hash=program.hash,
        shape=quantizer.shape,
        per_step=quantizer.per_step,
        axis=quantizer.channel_axis,
        steps=program.schedule.num_steps,
        layers=found.layers,
        kinds={layer.kind for layer in found.layers},
        calls=" ".join(part.given for layer in found.layers for part in layer.parts),
        quoted=json.dumps,
        scales=json.dumps({p.name: p.neuron.reals()["scale"] for p in program.readouts}),
        mean=list(quantizer.mean),
        std=list(quantizer.std),
        scale=quantizer.scale,
        low=quantizer.range.low,
        high=quantizer.range.high,
    )
    make_folder(folder)
    arrays = {name: np.ascontiguousarray(_small(values)) for name, values in found.arrays.items()}
    described = {"spikeport.program_hash": program.hash}
    atomic_write(folder / FILES[1], save(arrays, described))
    atomic_write(folder / FILES[0], text.encode())


def _small(values: np.ndarray) -> np.ndarray:
    """The same integers in the smallest signed type that holds them."""
    return values.astype(np.min_scalar_type(min(int(values.min()), -1 - int(values.max()))))
