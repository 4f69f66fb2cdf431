"""Construction of a recording from the records of each layer, by chunks of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.synops import fan_out
from toolchain.recording.layer_recorder import LayerRecord, LayerRecorder
from toolchain.recording.recording import RECORDING_VERSION, Recording
from toolchain.recording_mode import Mode


class RecordingBuilder:
    """Collects a run of `program` in the given mode.

    For each chunk of consecutive samples: take and feed `recorders`, then `add` their records;
    at the end `finish`.
    """

    def __init__(self, program: IntProgram, mode: Mode) -> None:
        self._program = program
        self._mode = mode
        self._fan_out = fan_out(program)
        self._synops = dict.fromkeys(self._fan_out, 0)
        self._unsettled = {p.name: 0 for p in program.spiking}
        self._chunks: list[Mapping[str, LayerRecord]] = []
        self._digests: dict[str, np.ndarray] = {}
        self._num_samples = 0

    def recorders(self) -> dict[str, LayerRecorder]:
        """A recorder for each population, for the next chunk."""
        before, schedule = self.digests(), self._program.schedule
        return {
            p.name: LayerRecorder(p, schedule, self._mode, before.get(p.name))
            for p in self._program.populations
        }

    def digests(self) -> dict[str, np.ndarray]:
        """Digests of all samples so far, by population; empty if the mode has none."""
        return dict(self._digests)

    def add(self, inputs: np.ndarray, records: Mapping[str, LayerRecord]) -> None:
        """Add a chunk: graded input spikes, int (n, ...), and the record of every population."""
        wake = self._program.schedule.wake_steps
        self._synops[INPUT] += wake * int(((inputs != 0) * self._fan_out[INPUT]).sum())
        for population in self._program.spiking:
            name = population.name
            self._synops[name] += int((records[name].activity * self._fan_out[name]).sum())
            self._unsettled[name] += records[name].unsettled
        chunk = {}
        for name, record in records.items():
            if record.digests is not None:
                self._digests[name] = record.digests
            times = record.spike_times
            if times is not None:
                times = times + np.array([self._num_samples, 0, 0, 0], np.int32)
            # Values that are summed already are not stored per chunk.
            nothing = np.zeros(0, np.int64)
            chunk[name] = replace(record, activity=nothing, digests=None, spike_times=times)
        self._chunks.append(chunk)
        self._num_samples += len(inputs)

    def finish(
        self, backend: str, labels: np.ndarray | None, extra: Mapping[str, Any]
    ) -> Recording:
        """The recording; `extra` (versions, seeds, data) is added to its `meta`."""
        program = self._program
        meta = {
            **extra,
            "recording_version": RECORDING_VERSION,
            "program": program.name,
            "program_hash": program.hash,
            "backend": backend,
            "mode": self._mode.value,
            "wake_steps": program.schedule.wake_steps,
            "sleep_steps": program.schedule.sleep_steps,
            "layers": [p.name for p in program.populations],
            "shapes": {p.name: list(p.shape) for p in program.populations},
            "num_samples": self._num_samples,
            "synops": self._synops,
            "unsettled": self._unsettled,
        }
        return Recording(
            meta=meta,
            outputs=self._joined("output", axis=0),
            labels=np.full(self._num_samples, -1, np.int64) if labels is None else labels,
            spikes=self._joined("spikes", axis=1),
            membrane=self._joined("membrane", axis=1),
            counts=self._joined("counts", axis=0),
            digests=self.digests(),
            spike_times=self._joined("spike_times", axis=0),
        )

    def _joined(self, what: str, axis: int) -> dict[str, np.ndarray]:
        """One kind of array, for every layer that has it, over all chunks."""
        joined = {}
        for name in self._chunks[0]:
            parts = [getattr(chunk[name], what) for chunk in self._chunks]
            if parts[0] is not None:
                joined[name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
        return joined
