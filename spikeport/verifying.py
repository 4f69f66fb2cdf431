"""`verify`: whether a file is intact, and its program still computes what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikeport.backends import Backend, Lava, Reference
from spikeport.running import open_for, quality, run_data
from spikeport.samples import Data
from toolchain.errors import RecordingError, UsageError
from toolchain.learning.data import Samples, input_spikes
from toolchain.progress import Progress
from toolchain.recording import Recording
from toolchain.recording.digest import CHAINED, digests_of
from toolchain.recording.replay import Replay

if TYPE_CHECKING:
    from toolchain.program.int_program import IntProgram

FULL_BYTES, BYTES_OF_A_STEP = 1 << 28, 5
"""Spikes and potentials of a full run, and of one neuron in one step."""


@dataclass(frozen=True, eq=False)
class Verification:
    """The result of `verify`.

    Attributes
    ----------
    ranges_hold:
        Whether the ranges are proved for every input.
    kept:
        Runs stored in the file.
    replayed:
        The run made by this call, if any; its `quality` contains the metrics by name.
    differences:
        Layers whose results differ from the stored run of the same data, in order.
    """

    program: IntProgram
    ranges_hold: bool
    kept: tuple[Replay, ...]
    replayed: Replay | None = None
    quality: Mapping[str, float | None] | None = None
    differences: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the ranges hold, or are watched in runs, and nothing differs."""
        return (self.ranges_hold or self.program.watch_ranges) and not self.differences


def verify(
    path: str | Path,
    samples: Data | None = None,
    *,
    record: bool = False,
    backend: str = Reference.name,
    time_limit: float = 3600.0,
    progress: Progress | None = None,
) -> Verification:
    """Check the hashes and ranges of a `.net` file, and replay a run stored in it.

    Parameters
    ----------
    samples:
        Samples to run, as in `run`; None checks the file alone.
    record:
        Store this run in the file instead of comparing it with the stored one.
    backend:
        "reference", or "lava" (with its fast models).

    Raises
    ------
    FormatError
        If the file is damaged.
    RecordingError
        If the file contains no run of these data.
    """
    from exports.netx import read_net
    from exports.netx.replays import add_replay, read_replays
    from toolchain.files import check_writable
    from toolchain.program.range_certificate import range_certificate

    file = Path(path)
    if samples is None and (record or backend != Reference.name):
        raise UsageError("record= and backend= need samples=")
    program = read_net(file)
    if record:
        check_writable(file)
    kept = tuple(read_replays(file))
    ranges_hold = bool(range_certificate(program)["holds"])
    if samples is None:
        return Verification(program, ranges_hold, kept)
    chosen = Lava("fast", time_limit=time_limit) if backend == Lava.name else Reference()
    data = open_for(program, samples)
    recording = run_data(program, data, chosen, "digest", progress)
    if not record and (CHAINED, data.sha256) in {(r.version, r.data_sha256) for r in kept}:
        recording = _with_chains(recording, program, data, chosen)
    replay = Replay.of(recording, data.name, data.sha256)
    measured = quality(program, recording, data)
    if record:
        add_replay(file, replay)
        return Verification(program, ranges_hold, kept, replay, measured)
    return Verification(
        program, ranges_hold, kept, replay, measured, tuple(_differences(replay, kept))
    )


def _with_chains(
    recording: Recording, program: IntProgram, data: Samples, backend: Backend
) -> Recording:
    """A recording with digests as older files keep them, from full runs of some samples each."""
    inputs, digests = input_spikes(program.input, data), dict[str, np.ndarray]()
    neurons = sum(prod(p.shape) for p in program.populations)
    chunk = max(1, FULL_BYTES // (neurons * BYTES_OF_A_STEP * program.schedule.num_steps))
    for start in range(0, len(inputs), chunk):
        digests = digests_of(backend.run(program, inputs[start : start + chunk]), CHAINED, digests)
    meta = {**recording.meta, "recording_version": CHAINED}
    return replace(recording, digests=digests, meta=meta)


def _differences(replay: Replay, kept: tuple[Replay, ...]) -> list[str]:
    """Layers that differ from the stored run of the same data.

    Raises
    ------
    RecordingError
        If there is no such run, or it has other layers.
    """
    for other in kept:
        if other.data_sha256 == replay.data_sha256:
            return replay.differences(other)
    raise RecordingError(
        "no run of these data is kept in the file",
        node=replay.data,
        found=replay.data_sha256,
        allowed=", ".join(f"{r.data} ({r.data_sha256[:16]})" for r in kept) or "none is kept",
        remedy="spikeport verify NET.net --data D --record keeps one",
    )
