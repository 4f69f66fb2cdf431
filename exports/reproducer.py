"""A mismatch made small: one sample, the layers it needs, and a script that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from exports.lava import LavaModels
from exports.netx import write_net
from toolchain.errors import RecordingError
from toolchain.files import atomic_write, make_folder
from toolchain.program.int_program import IntProgram
from toolchain.program.prefix import prefix
from toolchain.recording import Divergence, Recording, compare

NET, SAMPLE, SCRIPT = "net.net", "sample.npy", "reproduce.py"
BACKENDS = ("reference", "lava")
CHUNK = 16
"""Samples run at a time in search of the one that differs."""

_SCRIPT = '''"""{title}

Runs one sample through {layers} layers (the network has {all_layers}) on both simulators and
compares every value. Needs spikeport (and Lava: `spikeport doctor`). Exit status 1 if they differ.
"""

import sys
from pathlib import Path

import numpy as np

from exports.lava import LavaModels, run_on_lava
from exports.netx import read_net
from toolchain.recording import compare
from toolchain.simulator.simulate import Way, simulate

HERE = Path(__file__).parent


def run(backend, how, program, sample):
    if backend == "reference":
        return simulate(program, sample, way=Way(how["way"]))
    return run_on_lava(program, sample, models=LavaModels(**how))


def main():
    program, sample = read_net(HERE / "{net}"), np.load(HERE / "{sample}")
    expected = run({first_backend!r}, {first_how!r}, program, sample)
    found = run({second_backend!r}, {second_how!r}, program, sample)
    comparison = compare(expected, found)
    print(f"{{comparison.compared:,}} values compared, {{comparison.total:,}} mismatches")
    if comparison.first:
        print(f"first divergence: {{comparison.first}}")
    return 0 if comparison.equal else 1


if __name__ == "__main__":
    sys.exit(main())
'''


Run = Callable[[str, dict[str, Any], IntProgram, np.ndarray], Recording]
"""Runs a program on graded spikes by the name of a backend and how it goes, see `_backend`."""
Progress = Callable[[int, int], None]


def locate(
    program: IntProgram,
    inputs: np.ndarray,
    divergence: Divergence,
    runs: tuple[Mapping[str, Any], Mapping[str, Any]],
    run: Run,
    progress: Progress | None = None,
) -> Divergence:
    """The same divergence with its sample and neuron, where digests name only layer and step.

    Both backends run the network up to that layer again, a few samples at a time, until they
    differ.

    Raises
    ------
    RecordingError
        If they agree on every sample: the divergence does not recur.
    """
    if divergence.sample is not None:
        return divergence
    small = prefix(program, divergence.layer)
    for start in range(0, len(inputs), CHUNK):
        chunk = inputs[start : start + CHUNK]
        expected, found = (run(*_backend(meta), small, chunk) for meta in runs)
        first = compare(expected, found).first
        if first is not None and first.sample is not None:
            return replace(first, sample=first.sample + start)
        if progress:
            progress(start + len(chunk), len(inputs))
    raise RecordingError(
        "the divergence does not recur",
        node=divergence.layer,
        found=f"no difference in {len(inputs)} samples",
        remedy="give the network and the data that both recordings were made with",
    )


def write_reproducer(
    program: IntProgram,
    inputs: np.ndarray,
    divergence: Divergence,
    runs: tuple[Mapping[str, Any], Mapping[str, Any]],
    folder: Path,
) -> Path:
    """Write the program's part up to the divergence, the sample and a script into `folder`.

    Parameters
    ----------
    inputs:
        Graded input spikes of all samples, int (N, ...).
    divergence:
        Where two recordings first differ, with its sample (see `locate`).
    runs:
        The `meta` of both recordings.

    Returns
    -------
    Path of the script.

    Raises
    ------
    RecordingError
        If the divergence names no layer or sample of this program and these inputs, or a recording
        was made by something that the script cannot run.
    """
    names = [p.name for p in program.populations]
    sample = divergence.sample
    if divergence.layer not in names or sample is None or sample >= len(inputs):
        raise RecordingError(
            "no reproducer can be made of this divergence",
            found=f"layer {divergence.layer}, sample {divergence.sample}",
            allowed=f"a layer of the network and one of {len(inputs)} samples",
            remedy="give the network and the data that both recordings were made with",
        )
    neuron = 0
    if divergence.neuron is not None:
        shape = program.population(divergence.layer).shape
        neuron = int(np.ravel_multi_index(divergence.neuron, shape))
    small = prefix(program, divergence.layer, neuron)
    make_folder(folder)
    write_net(small, folder / NET)
    held = BytesIO()
    np.save(held, inputs[sample : sample + 1].astype(np.int32))
    atomic_write(folder / SAMPLE, held.getvalue())
    (first, first_how), (second, second_how) = (_backend(meta) for meta in runs)
    script = folder / SCRIPT
    atomic_write(
        script,
        _SCRIPT.format(
            title=f"{first} against {second}: {divergence}",
            layers=len(small.populations),
            all_layers=len(names),
            net=NET,
            sample=SAMPLE,
            first_backend=first,
            first_how=first_how,
            second_backend=second,
            second_how=second_how,
        ).encode(),
    )
    return script


def _backend(meta: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Backend, and how it goes for one sample: its models on Lava, the way of the reference."""
    backend = str(meta["backend"])
    if backend not in BACKENDS:
        raise RecordingError(
            "no reproducer for recordings of this backend",
            found=backend,
            allowed=", ".join(BACKENDS),
        )
    if backend != "lava":
        return backend, {"way": str(meta.get("way", "stepwise"))}
    recorded = meta.get("models", {})
    kept = {name: recorded[name] for name in ("tag", "neurons", "watch_ranges") if name in recorded}
    return backend, LavaModels(**kept).__dict__
