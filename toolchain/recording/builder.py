"""Builds a recording from chunks of samples, the same way for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np

from toolchain.errors import RecordingError
from toolchain.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, LIPool, Readout, Relay
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.synops import fan_out
from toolchain.recording.digest import StepDigests
from toolchain.recording.recording import RECORDING_VERSION, Mode, Recording


class RecordingBuilder:
    """Collects chunks of a run of `program` in the given mode.

    Call `add` with consecutive chunks of samples, then `finish`.
    """

    def __init__(self, program: IntProgram, mode: Mode) -> None:
        self._program = program
        self._mode = mode
        steps = program.schedule.num_steps
        self._digests = {p.name: StepDigests(steps) for p in program.populations}
        self._spikes: dict[str, list[np.ndarray]] = {p.name: [] for p in program.spiking}
        self._membrane: dict[str, list[np.ndarray]] = {p.name: [] for p in program.populations}
        self._counts: dict[str, list[np.ndarray]] = {p.name: [] for p in program.spiking}
        self._logits: list[np.ndarray] = []
        self._fan_out = fan_out(program)
        self._synops = dict.fromkeys(self._fan_out, 0)
        self._unsettled = {p.name: 0 for p in program.spiking}

    def add(
        self,
        inputs: np.ndarray,
        spikes: Mapping[str, np.ndarray],
        membrane: Mapping[str, np.ndarray],
    ) -> None:
        """Add n samples.

        Parameters
        ----------
        inputs:
            Graded input spikes, int32 (n, ...).
        spikes:
            By spiking population, int8 (T, n, ...).
        membrane:
            By population, the readout included, int32 (T, n, ...), after firing;
            of a LIPool the largest count of its window, of a relay 0.
        """
        wake = self._program.schedule.wake_steps
        self._synops[INPUT] += wake * int(((inputs != 0) * self._fan_out[INPUT]).sum())
        for population in self._program.populations:
            name = population.name
            values = membrane[name]
            if values.dtype != np.int32 or values.shape[2:] != population.shape:
                raise RecordingError(
                    "a backend delivered the wrong kind of membrane potential",
                    node=name,
                    found=f"{values.dtype} {values.shape}",
                )
            if isinstance(population.neuron, Readout):
                self._logits.append(values[-1].astype(np.int64))
                self._keep(name, None, values)
                continue
            sent = spikes[name]
            counts = sent.sum(axis=0, dtype=np.int32)
            self._counts[name].append(counts)
            events = np.count_nonzero(sent, axis=(0, 1))
            self._synops[name] += int((events * self._fan_out[name]).sum())
            self._unsettled[name] += count_unsettled(
                population.neuron, population, values[-1], counts, wake
            )
            self._keep(name, sent, values)

    def _keep(self, name: str, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        if self._mode is not Mode.COUNTS:
            self._digests[name].update(spikes, membrane)
        if self._mode is Mode.FULL:
            self._membrane[name].append(membrane)
            if spikes is not None:
                self._spikes[name].append(spikes)

    def finish(
        self, backend: str, labels: np.ndarray | None, extra: Mapping[str, Any]
    ) -> Recording:
        """The recording; `extra` (versions, seeds, data) joins its `meta`."""
        program, full = self._program, self._mode is Mode.FULL
        logits = np.concatenate(self._logits)
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
            "num_samples": len(logits),
            "synops": self._synops,
            "unsettled": self._unsettled,
        }
        return Recording(
            meta=meta,
            logits=logits,
            labels=np.full(len(logits), -1, np.int64) if labels is None else labels,
            spikes={n: np.concatenate(v, 1) for n, v in self._spikes.items()} if full else {},
            membrane={n: np.concatenate(v, 1) for n, v in self._membrane.items()} if full else {},
            counts={}
            if self._mode is Mode.DIGEST
            else {n: np.concatenate(v) for n, v in self._counts.items()},
            digests={}
            if self._mode is Mode.COUNTS
            else {n: d.result() for n, d in self._digests.items()},
        )


@singledispatch
def count_unsettled(
    neuron: object, population: Population, membrane: np.ndarray, counts: np.ndarray, wake: int
) -> int:
    """Neurons that would still fire in a further sleep step without any input.

    None in any population: the network has settled, and more sleep changes nothing.
    """
    raise RecordingError(
        "no rule for when this neuron has settled",
        node=population.name,
        found=type(neuron).__name__,
    )


@count_unsettled.register
def _(
    neuron: IntegrateAndFire,
    population: Population,
    membrane: np.ndarray,
    counts: np.ndarray,
    wake: int,
) -> int:
    return int((membrane >= population.per_channel(neuron.threshold)).sum())


@count_unsettled.register
def _(
    neuron: ConsistentIntegrateAndFire,
    population: Population,
    membrane: np.ndarray,
    counts: np.ndarray,
    wake: int,
) -> int:
    fires = (membrane >= population.per_channel(neuron.threshold)) & (counts < wake)
    takes_back = (membrane < 0) & (counts > 0)
    return int((fires | takes_back).sum())


@count_unsettled.register(LIPool)
@count_unsettled.register(Relay)
def _(
    neuron: LIPool | Relay,
    population: Population,
    membrane: np.ndarray,
    counts: np.ndarray,
    wake: int,
) -> int:
    return 0  # They answer spikes and never send one of their own accord.
