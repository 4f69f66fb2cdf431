"""Construction of recordings: from the records of each layer, and from recordings of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolchain.errors import RecordingError
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.synops import fan_out
from toolchain.recording.digest import joined
from toolchain.recording.layer_recorder import LayerRecord, LayerRecorder
from toolchain.recording.recording import RECORDING_VERSION, Recording
from toolchain.recording_mode import Mode

COUNTED = ("num_samples", "synops", "unsettled")
"""Entries of `meta` that are sums over the samples; parts of one run have all others in common."""


def make_recorders(program: IntProgram, mode: Mode) -> dict[str, LayerRecorder]:
    """A recorder for each population; `build` takes their records."""
    return {p.name: LayerRecorder(p, program.schedule, mode) for p in program.populations}


def build(
    program: IntProgram,
    mode: Mode,
    inputs: np.ndarray,
    records: Mapping[str, LayerRecord],
    labels: np.ndarray | None,
    made_by: Mapping[str, Any],
) -> Recording:
    """The recording of a run.

    Parameters
    ----------
    inputs:
        Graded input spikes, int (N, *sample_shape).
    records:
        The record of every population.
    labels:
        Classes, int64 (N,), or None.
    made_by:
        `backend`, and what else `meta` says of it (versions, seeds).
    """
    fans, schedule = fan_out(program), program.schedule
    steps = 1 if program.input.per_step else schedule.wake_steps
    events = np.count_nonzero(inputs.reshape(-1, *program.input.shape), axis=0)
    synops = {INPUT: steps * int((events * fans[INPUT]).sum())}
    synops |= {
        p.name: int((records[p.name].activity * fans[p.name]).sum()) for p in program.spiking
    }
    meta = {
        **made_by,
        "recording_version": RECORDING_VERSION,
        "program": program.name,
        "program_hash": program.hash,
        "mode": mode.value,
        "wake_steps": schedule.wake_steps,
        "sleep_steps": schedule.sleep_steps,
        "layers": [p.name for p in program.populations],
        "shapes": {p.name: list(p.shape) for p in program.populations},
        "num_samples": len(inputs),
        "synops": synops,
        "unsettled": {p.name: records[p.name].unsettled for p in program.spiking},
    }

    def arrays(what: str) -> dict[str, np.ndarray]:
        found = {name: getattr(record, what) for name, record in records.items()}
        return {name: array for name, array in found.items() if array is not None}

    return Recording(
        meta,
        arrays("output"),
        np.full(len(inputs), -1, np.int64) if labels is None else labels,
        arrays("spikes"),
        arrays("membrane"),
        arrays("counts"),
        arrays("digests"),
        arrays("spike_times"),
    )


def join(parts: Sequence[Recording]) -> Recording:
    """One recording of consecutive parts of the samples: that of a run over all of them.

    Raises
    ------
    RecordingError
        If the parts are not of one program, backend and mode, or of other versions.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if first.digests and first.version != RECORDING_VERSION:
        raise RecordingError(
            "digests of this version cannot be joined",
            found=first.version,
            allowed=RECORDING_VERSION,
            remedy="record the parts again",
        )
    for part in parts[1:]:
        keys = {*first.meta, *part.meta} - {*COUNTED}
        different = sorted(key for key in keys if first.meta.get(key) != part.meta.get(key))
        if different:
            raise RecordingError(
                "the parts of a run were not made in one way",
                node=", ".join(different),
                found=part.meta.get(different[0]),
                allowed=first.meta.get(different[0]),
            )
    sizes = [part.num_samples for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])

    def arrays(what: str, axis: int = 0) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([getattr(part, what)[name] for part in parts], axis)
            for name in getattr(first, what)
        }

    meta = {**first.meta, "num_samples": sum(sizes)}
    for what in COUNTED[1:]:
        counts = [part.meta[what] for part in parts]
        meta[what] = {name: sum(count[name] for count in counts) for name in counts[0]}
    return Recording(
        meta,
        arrays("outputs"),
        np.concatenate([part.labels for part in parts]),
        arrays("spikes", axis=1),
        arrays("membrane", axis=1),
        arrays("counts"),
        {
            name: joined([(part.digests[name], part.num_samples) for part in parts])
            for name in first.digests
        },
        {
            name: np.concatenate(
                [
                    part.spike_times[name] + np.array([start, 0, 0, 0], np.int32)
                    for part, start in zip(parts, starts, strict=True)
                ]
            )
            for name in first.spike_times
        },
    )
