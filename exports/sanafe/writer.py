"""Writes a placed program as networks of SANA-FE, with the program that runs them there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exports.entry import Entry, Fate
from exports.sanafe.network import NEVER, Plan
from toolchain.files import atomic_write, make_folder
from toolchain.program.int_program import INPUT, IntProgram

RUN, PLAN = "run.py", "plan.json"
FORMAT = "spikeport.sanafe"


def file_names(samples: int) -> tuple[str, ...]:
    """The networks that `write_sanafe` makes beside `RUN` and `PLAN`, one for each sample."""
    return tuple(f"sample{index}.net" for index in range(samples))


def write_sanafe(
    program: IntProgram, homes: Mapping[str, np.ndarray], inputs: np.ndarray, folder: Path
) -> list[Entry]:
    """Write the networks, `PLAN` and `RUN` into `folder`; return what SANA-FE does otherwise.

    Parameters
    ----------
    homes:
        Index of the core of every neuron, int (C, H, W) or (F,), by layer.
    inputs:
        Graded input spikes of the samples, int (N, ...).

    Raises
    ------
    TargetError
        If the program or its places do not fit SANA-FE.
    ProgramError, ValueRangeError
        If the inputs do not fit the program.
    OutputError
        If the folder cannot be written.
    """
    program.check_inputs(inputs)
    plan = Plan.of(program, homes)
    schedule, layers = program.schedule, plan.layers()
    document = {
        "format": FORMAT,
        "version": 1,
        "program": {"name": program.name, "hash": program.hash},
        "samples": len(inputs),
        "steps": schedule.num_steps,
        "wake": schedule.wake_steps,
        "never": NEVER,
        "traced": [layer["group"] for layer in layers],
        "layers": layers,
    }
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    written = {"version": version("spikeport"), "hash": program.hash}
    title = program.name.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    text = page.get_template(f"{RUN}.jinja").render(
        title=title, steps=schedule.num_steps, **written
    )
    netlist = page.get_template("network.net.jinja")
    make_folder(folder)
    for name, sample in zip(file_names(len(inputs)), inputs, strict=True):
        parts = vars(plan.network(sample))
        atomic_write(folder / name, netlist.render(never=NEVER, **parts, **written).encode())
    atomic_write(folder / PLAN, (json.dumps(document) + "\n").encode())
    atomic_write(folder / RUN, text.encode())
    return _ledger(program, plan)


def _ledger(program: IntProgram, plan: Plan) -> list[Entry]:
    """What SANA-FE's Loihi lacks, and what follows for its figures."""
    entries = [
        Entry(
            "local steps, biases per step",
            "every layer",
            Fate.DURING_RUN,
            "run.py gives potentials, biases and thresholds at the layer's own steps; at the steps "
            "in between, SANA-FE still counts accesses to the neurons",
        ),
        Entry(
            "firing at the threshold",
            "every layer",
            Fate.FOLDED,
            "its neuron fires above it: potentials lie 1/2 higher",
        ),
        Entry(
            "input from the host",
            INPUT,
            Fate.FOLDED,
            f"the input's neurons are on {plan.input_cores} cores more, which send its spikes",
        ),
    ]
    if program.input.range.high > 1 or program.input.range.low < 0:
        consequence = "connections from the input weigh weight times value, in a network per sample"
        entries.append(Entry("graded spikes", INPUT, Fate.FOLDED, consequence))
    entries += [
        Entry(
            "delays of shorter branches",
            source,
            Fate.FOLDED,
            f"neurons that repeat its spikes, {wait} step{'s' * (wait > 1)} long; their energy and "
            "messages are counted",
        )
        for source, wait in plan.waits.items()
        if wait
    ]
    return entries
