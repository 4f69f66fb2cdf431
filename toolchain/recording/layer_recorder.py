"""Recording of one layer, step by step while a backend runs.

Backends deliver arrays with the channels last; recordings store them with the channels first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from toolchain.errors import RecordingError
from toolchain.program.int_program import Population, Schedule
from toolchain.program.neurons import Readout, ThresholdNeuron
from toolchain.recording.digest import StepDigests
from toolchain.recording_mode import Mode

BYTE, INT8_MAX = 255, 127
"""Largest values of an unsigned and of a signed byte."""


def channels_first(values: np.ndarray) -> np.ndarray:
    """An array (n, H, W, C) as (n, C, H, W); (n, F) stays."""
    return np.moveaxis(values, -1, 1)


def channels_last(values: np.ndarray) -> np.ndarray:
    """An array (n, C, H, W) as (n, H, W, C); (n, F) stays."""
    return np.moveaxis(values, 1, -1)


@dataclass
class LayerRecord:
    """The record of a layer over some samples; see `Recording` for the arrays.

    Attributes
    ----------
    activity:
        Number of nonzero spikes of each neuron, int64 (C, H, W) or (F,); 0 for a readout.
    unsettled:
        Number of neurons, over all samples, that would still fire without input.
    output:
        Accumulator of a readout at the end, int64 (n, K) or (n, C, H, W); else None.
    """

    activity: np.ndarray
    unsettled: int
    output: np.ndarray | None
    counts: np.ndarray | None
    digests: np.ndarray | None
    spikes: np.ndarray | None
    membrane: np.ndarray | None
    spike_times: np.ndarray | None

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays that the record has, by name."""
        found = {k: v for k, v in self.__dict__.items() if v is not None}
        return {k: np.asarray(v) for k, v in found.items()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> LayerRecord:
        """The record from the result of `arrays`."""
        optional = ("output", "counts", "digests", "spikes", "membrane", "spike_times")
        return cls(
            arrays["activity"],
            int(arrays["unsettled"]),
            **{name: arrays.get(name) for name in optional},
        )


@dataclass
class _Kept:
    counts: list[np.ndarray] = field(default_factory=list)
    output: list[np.ndarray] = field(default_factory=list)
    spikes: list[list[np.ndarray]] = field(default_factory=list)
    membrane: list[list[np.ndarray]] = field(default_factory=list)
    spike_times: list[np.ndarray] = field(default_factory=list)


class LayerRecorder:
    """Records every local step of a population, batch after batch of samples."""

    def __init__(self, population: Population, schedule: Schedule, mode: Mode) -> None:
        self._population, self._schedule, self._mode = population, schedule, mode
        self._digests = StepDigests(schedule.num_steps)
        self._reads_out = isinstance(population.neuron, Readout)
        shape = channels_last(np.empty((1, *population.shape))).shape[1:]
        self._activity = np.zeros(shape, np.int64)
        self._counts: np.ndarray | None = None
        neuron, steps = population.neuron, schedule.num_steps
        few = isinstance(neuron, ThresholdNeuron) and neuron.largest_spike * steps <= INT8_MAX
        # A byte can count that many spikes, and adding bytes is fastest.
        self._count_type = np.int8 if few else np.int32
        self._unsettled = 0
        self._samples = 0
        self._kept = _Kept()

    @property
    def traces(self) -> bool:
        """Whether it needs the membrane potential of every step, not only of the last."""
        return self._mode is not Mode.COUNTS

    def step(self, local_step: int, spikes: np.ndarray | None, membrane: np.ndarray | None) -> None:
        """Add a local step, from 1, of n samples.

        Parameters
        ----------
        spikes:
            int8 (n, H, W, C) or (n, F); None from a readout.
        membrane:
            int32, in the same axes, after firing; of a LIPool the largest count of its window, of a
            relay 0. None, before the last step, where it does not take it.

        Raises
        ------
        RecordingError
            If an array has another type or shape, or a membrane potential is missing.
        """
        last = local_step == self._schedule.num_steps
        if membrane is not None:
            self._check(spikes, membrane)
        elif self.traces or last or spikes is None:
            raise RecordingError("a membrane potential is missing", node=self._population.name)
        if local_step == 1:
            self._start_batch()
        if spikes is not None:
            self._add_spikes(local_step, spikes)
        if membrane is not None:
            self._add_membrane(local_step, spikes, membrane)
            if last:
                self._end_of_batch(membrane)

    def _start_batch(self) -> None:
        self._counts = None
        if self._mode is Mode.FULL:
            self._kept.spikes.append([])
            self._kept.membrane.append([])

    def _add_spikes(self, local_step: int, spikes: np.ndarray) -> None:
        if self._counts is None:
            self._counts = np.zeros(spikes.shape, self._count_type)
        self._counts += spikes
        self._activity += _number_of_spikes(spikes)
        if self._mode is Mode.EVENTS:
            self._kept.spike_times.append(_spike_times(spikes, local_step, self._samples))
        if self._mode is Mode.FULL:
            self._kept.spikes[-1].append(_kept_copy(spikes))

    def _add_membrane(
        self, local_step: int, spikes: np.ndarray | None, membrane: np.ndarray
    ) -> None:
        if self.traces:
            self._digests.update(local_step, spikes, membrane)
        if self._mode is Mode.FULL:
            self._kept.membrane[-1].append(_kept_copy(membrane))

    def _check(self, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        sent = np.int8 if spikes is None else spikes.dtype
        if (
            membrane.dtype != np.int32
            or membrane.shape[1:] != self._activity.shape
            or sent != np.int8
            or (spikes is None) != self._reads_out
        ):
            raise RecordingError(
                "a backend delivered the wrong kind of spikes or membrane potentials",
                node=self._population.name,
                found=f"{sent}, {membrane.dtype} {membrane.shape}",
                allowed=f"int8, int32 (n, {', '.join(map(str, self._activity.shape))})",
            )

    def _end_of_batch(self, membrane: np.ndarray) -> None:
        self._samples += len(membrane)
        if self._reads_out:
            self._kept.output.append(_kept_copy(membrane).astype(np.int64))
            return
        assert self._counts is not None
        self._unsettled += self._population.neuron.unsettled(
            membrane, self._counts, self._schedule.wake_steps
        )
        if self._mode in (Mode.FULL, Mode.COUNTS):
            self._kept.counts.append(_kept_copy(self._counts).astype(np.int32))

    def finish(self) -> LayerRecord:
        """The record of all batches."""
        kept, full = self._kept, self._mode is Mode.FULL
        return LayerRecord(
            activity=channels_first(self._activity[None])[0],
            unsettled=self._unsettled,
            output=np.concatenate(kept.output) if self._reads_out else None,
            counts=np.concatenate(kept.counts) if kept.counts else None,
            digests=None if self._mode is Mode.COUNTS else self._digests.result(),
            spikes=_by_step(kept.spikes) if full and not self._reads_out else None,
            membrane=_by_step(kept.membrane) if full else None,
            spike_times=(
                _sorted(kept.spike_times)
                if self._mode is Mode.EVENTS and not self._reads_out
                else None
            ),
        )


def _kept_copy(values: np.ndarray) -> np.ndarray:
    return np.array(channels_first(values), order="C")


def _number_of_spikes(spikes: np.ndarray) -> np.ndarray:
    """Number of samples, of n, with a nonzero spike, int64 (...), counted in bytes if possible."""
    sent = (spikes != 0).view(np.uint8)
    parts = [sent[i : i + BYTE] for i in range(0, len(sent), BYTE)]
    counts = [np.add.reduce(part, axis=0, dtype=np.uint8) for part in parts]
    return np.asarray(np.sum(counts, 0, np.int64))


def _spike_times(spikes: np.ndarray, local_step: int, first: int) -> np.ndarray:
    """Events of a step, int32 (E, 4), see `Recording`; the first sample has the index `first`."""
    flat = channels_first(spikes).reshape(len(spikes), -1)
    sample, neuron = np.nonzero(flat)
    columns = (sample + first, np.full(len(sample), local_step), neuron, flat[sample, neuron])
    return np.stack(columns, axis=1).astype(np.int32)


def _sorted(events: list[np.ndarray]) -> np.ndarray:
    """All events, sorted by sample, step and neuron."""
    rows = np.concatenate([np.zeros((0, 4), np.int32), *events])
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


def _by_step(batches: list[list[np.ndarray]]) -> np.ndarray:
    """Batches of steps of (n, ...) as one array (T, N, ...)."""
    return np.concatenate([np.stack(steps) for steps in batches], axis=1)
