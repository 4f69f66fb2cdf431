"""Reproducers of mismatches: one sample, the layers it needs, and a script that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exports.netx import write_net
from spikeport.backends import BACKENDS, Backend
from toolchain.errors import RecordingError
from toolchain.files import atomic_path, atomic_write, make_folder
from toolchain.program.int_program import IntProgram
from toolchain.program.prefix import prefix
from toolchain.progress import Progress
from toolchain.recording import Divergence, compare
from toolchain.text import visible

NET, SAMPLE, SCRIPT = "net.net", "sample.npy", "reproduce.py"
CHUNK = 16
"""Samples per run while `locate` searches for the sample that differs."""

_SCRIPT = '''# {title}
"""Runs one sample through {layers} layers (the network has {all_layers}) on both simulators and
compares every value. Needs spikeport (and Lava: `spikeport doctor`). Exit status 1 if they differ.
"""

import sys
from pathlib import Path

import numpy as np

import spikeport
from spikeport import Lava, Reference  # noqa: F401
from toolchain.text import visible

HERE = Path(__file__).parent


def main():
    program, sample = spikeport.load(HERE / "{net}"), np.load(HERE / "{sample}")
    expected = {first!r}.run(program, sample)
    found = {second!r}.run(program, sample)
    comparison = spikeport.compare(expected, found)
    print(f"{{comparison.compared:,}} values compared, {{comparison.total:,}} mismatches")
    if comparison.first:
        print(f"first divergence: {{visible(comparison.first)}}")
    return 0 if comparison.equal else 1


if __name__ == "__main__":
    sys.exit(main())
'''


def locate(
    program: IntProgram,
    inputs: np.ndarray,
    divergence: Divergence,
    runs: tuple[Mapping[str, Any], Mapping[str, Any]],
    progress: Progress | None = None,
) -> Divergence:
    """Add sample and neuron to a divergence that digests locate by layer and step only.

    Both backends run the network up to that layer again, `CHUNK` samples at a time, until they
    differ.

    `inputs` are graded input spikes, int (N, ...); `runs` are the `meta` of both recordings.

    Raises
    ------
    RecordingError
        If the backends agree on every sample: the divergence does not recur.
    """
    if divergence.sample is not None:
        return divergence
    small = prefix(program, divergence.layer)
    for start in range(0, len(inputs), CHUNK):
        chunk = inputs[start : start + CHUNK]
        expected, found = (_backend(meta).run(small, chunk) for meta in runs)
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
    """Write the program up to the divergence, the sample and a script into `folder`.

    Parameters
    ----------
    inputs:
        Graded input spikes of all samples, int (N, ...).
    divergence:
        First difference between two recordings, with its sample (see `locate`).
    runs:
        The `meta` of both recordings.

    Returns
    -------
    Path of the script.

    Raises
    ------
    RecordingError
        If the divergence names no layer or sample of this program and these inputs, or if the
        script cannot run the backend of a recording.
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
    with atomic_path(folder / SAMPLE) as temporary, temporary.open("wb") as file:
        np.save(file, inputs[sample : sample + 1].astype(np.int32))
    first, second = (_backend(meta) for meta in runs)
    script = folder / SCRIPT
    atomic_write(
        script,
        _SCRIPT.format(
            title=visible(f"{first.name} against {second.name}: {divergence}"),
            layers=len(small.populations),
            all_layers=len(names),
            net=NET,
            sample=SAMPLE,
            first=first,
            second=second,
        ).encode(),
    )
    return script


def _backend(meta: Mapping[str, Any]) -> Backend:
    """The backend that made a recording, for one sample."""
    name = str(meta["backend"])
    if name not in BACKENDS:
        raise RecordingError(
            "no reproducer for recordings of this backend", found=name, allowed=", ".join(BACKENDS)
        )
    return BACKENDS[name].of_recording(meta)
