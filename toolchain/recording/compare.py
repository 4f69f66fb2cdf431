"""Bit-by-bit comparison of two recordings, down to the first divergent neuron.

"First" follows cause and effect: the schedule, then layers in topological order, inside a layer
by step, membrane potential and spikes, then sample and neuron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolchain.errors import RecordingError
from toolchain.recording.digest import MEMBRANE, SPIKES, digests_of
from toolchain.recording.recording import Recording
from toolchain.recording.schema import check_complete
from toolchain.recording_mode import Mode

SCHEDULE, LABELS = "/schedule", "/labels"
"""Names in place of a layer's if steps or labels differ; no layer's name has a slash."""


@dataclass(frozen=True)
class Divergence:
    """The first difference between two recordings.

    Attributes
    ----------
    step:
        Local step, from 1; None if only totals are known.
    sample, neuron:
        Index of the sample, and (c, y, x) or (f,) of the neuron; None if only digests are known.
    expected, found:
        The value in the first and in the second recording.
    """

    layer: str
    quantity: str
    step: int | None
    sample: int | None
    neuron: tuple[int, ...] | None
    expected: int | str
    found: int | str

    def __str__(self) -> str:
        where = self.layer[1:] if self.layer in (SCHEDULE, LABELS) else f"layer {self.layer}"
        parts = [where, self.quantity]
        if self.step is not None:
            parts.append(f"step {self.step}")
        if self.sample is not None:
            parts.append(f"sample {self.sample}")
        if self.neuron is not None:
            parts.append(f"neuron {self.neuron}")
        return f"{', '.join(parts)}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes
    ----------
    compared:
        Number of values (or digests) compared.
    mismatches:
        Number of values (or digests) that differ, by layer; layers without any are absent.
    same_program:
        Whether both recordings are of the same program.
    """

    granularity: str
    compared: int
    mismatches: dict[str, int]
    first: Divergence | None
    same_program: bool

    @property
    def total(self) -> int:
        """Number of mismatches, summed over the layers."""
        return sum(self.mismatches.values())

    @property
    def equal(self) -> bool:
        """Whether the programs and all values are the same."""
        return self.same_program and self.total == 0

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON; `first` is null if nothing differs."""
        first = None if self.first is None else {**self.first.__dict__, "text": str(self.first)}
        return {
            "equal": self.equal,
            "granularity": self.granularity,
            "compared": self.compared,
            "mismatches": self.total,
            "mismatches_by_layer": self.mismatches,
            "same_program": self.same_program,
            "first": first,
        }


class _Tally:
    def __init__(self) -> None:
        self.compared = 0
        self.mismatches: dict[str, int] = {}
        self.first: Divergence | None = None

    def note(self, layer: str, different: int, divergence: Divergence | None) -> None:
        if different:
            self.mismatches[layer] = self.mismatches.get(layer, 0) + different
            self.first = self.first or divergence


def compare(expected: Recording, found: Recording) -> Comparison:
    """Compare all values that both recordings contain: every value in full mode, digests otherwise.

    Two recordings of events are compared spike by spike; their potentials, by digest.

    Different schedules count as a divergence; the common steps are still compared.

    Raises
    ------
    RecordingError
        If a recording is incomplete for its mode, or they do not have the same layers, shapes or
        samples, or have no data in common.
    """
    for recording in (expected, found):
        check_complete(recording)
    _check_comparable(expected, found)
    tally = _Tally()
    _compare_schedules(expected, found, tally)
    if expected.mode is Mode.FULL and found.mode is Mode.FULL:
        granularity = "every value"
        _compare_full(expected, found, tally)
    elif expected.version != found.version and expected.digests and found.digests:
        return compare(*_in_one_version(expected, found))
    elif expected.spike_times and found.spike_times:
        granularity = "every spike, and digests of membrane potentials"
        for layer in expected.layers:
            _compare_events(layer, expected, found, tally)
    elif expected.digests and found.digests:
        granularity = "digests of each layer and step"
        for layer in expected.layers:
            tally.note(layer, *_digest_mismatches(layer, expected, found, tally))
    elif expected.counts and found.counts:
        granularity = "spike counts"
        _compare_counts(expected, found, tally)
    else:
        raise RecordingError(
            "the recordings hold nothing that can be compared",
            found=f"{expected.mode.value} and {found.mode.value}",
            allowed="full with any, or twice the same mode",
        )
    what = "logits" if len(expected.outputs) == 1 else "output"
    for name, output in expected.outputs.items():
        _compare_array(what, output, found.outputs[name], name, None, tally)
    _compare_labels(expected, found, tally)
    same = expected.meta["program_hash"] == found.meta["program_hash"]
    return Comparison(granularity, tally.compared, tally.mismatches, tally.first, same)


def _check_comparable(expected: Recording, found: Recording) -> None:
    for what in ("layers", "num_samples", "shapes"):
        values = (expected.meta.get(what), found.meta.get(what))
        if None not in values and values[0] != values[1]:  # early ones have no shapes
            raise RecordingError(
                f"the recordings differ in {what} and cannot be compared",
                found=values[1],
                allowed=values[0],
            )
    if set(expected.outputs) != set(found.outputs):
        raise RecordingError(
            "the recordings have different outputs",
            found=", ".join(found.outputs),
            allowed=", ".join(expected.outputs),
        )


def _in_one_version(expected: Recording, found: Recording) -> tuple[Recording, Recording]:
    """Both recordings with digests of one version, made of all values of a full one."""
    if found.mode is Mode.FULL:
        return expected, _in_version(found, expected.version)
    if expected.mode is Mode.FULL:
        return _in_version(expected, found.version), found
    raise RecordingError(
        "the recordings have digests of different versions",
        found=f"version {found.version}",
        allowed=f"version {expected.version}",
        remedy='record one of them again, with record="full"',
    )


def _in_version(full: Recording, version: int) -> Recording:
    meta = {**full.meta, "recording_version": version}
    return replace(full, digests=digests_of(full, version), meta=meta)


def _compare_schedules(expected: Recording, found: Recording, tally: _Tally) -> None:
    for what in ("wake_steps", "sleep_steps"):
        a, b = int(expected.meta[what]), int(found.meta[what])
        tally.compared += 1
        if a != b:
            tally.note(SCHEDULE, 1, Divergence(SCHEDULE, what, None, None, None, a, b))


def _compare_labels(expected: Recording, found: Recording, tally: _Tally) -> None:
    """Note labels that differ; they are not values of the network and are not counted."""
    different = np.flatnonzero(expected.labels != found.labels)
    if len(different):
        sample = int(different[0])
        a, b = (int(r.labels[sample]) for r in (expected, found))
        divergence = Divergence(LABELS, "label", None, sample, None, a, b)
        tally.note(LABELS, len(different), divergence)


def _common_steps(expected: Recording, found: Recording) -> int:
    return min(int(r.meta["wake_steps"]) + int(r.meta["sleep_steps"]) for r in (expected, found))


def _compare_array(
    quantity: str, a: np.ndarray, b: np.ndarray, layer: str, step: int | None, tally: _Tally
) -> None:
    if a.shape != b.shape:
        raise RecordingError(
            "the recordings differ in shape", node=layer, found=b.shape, allowed=a.shape
        )
    tally.compared += a.size
    different = a != b
    count = int(different.sum())
    divergence = None
    if count:
        index = tuple(int(i) for i in np.argwhere(different)[0])
        divergence = Divergence(
            layer, quantity, step, index[0], index[1:], int(a[index]), int(b[index])
        )
    tally.note(layer, count, divergence)


def _compare_full(expected: Recording, found: Recording, tally: _Tally) -> None:
    steps = _common_steps(expected, found)
    for layer in expected.layers:
        for step in range(steps):
            for quantity, a, b in (
                ("membrane", expected.membrane, found.membrane),
                ("spikes", expected.spikes, found.spikes),
            ):
                if layer in a:
                    _compare_array(quantity, a[layer][step], b[layer][step], layer, step + 1, tally)


def _digest_mismatches(
    layer: str,
    expected: Recording,
    found: Recording,
    tally: _Tally,
    quantities: tuple[int, ...] = (MEMBRANE, SPIKES),
) -> tuple[int, Divergence | None]:
    """Number of different digests, and the first; `quantities` in the order of cause and effect."""
    steps = _common_steps(expected, found)
    a, b = expected.digests[layer][:steps], found.digests[layer][:steps]
    different = (a != b).any(axis=2)[:, list(quantities)]
    tally.compared += different.size
    if not different.any():
        return 0, None
    step, which = (int(index) for index in np.argwhere(different)[0])
    which = quantities[which]
    divergence = Divergence(
        layer,
        ("spikes", "membrane")[which],
        step + 1,
        None,
        None,
        a[step, which].tobytes().hex(),
        b[step, which].tobytes().hex(),
    )
    return int(different.sum()), divergence


def _compare_events(layer: str, expected: Recording, found: Recording, tally: _Tally) -> None:
    """Compare spikes one by one and potentials by digest; the earlier step comes first."""
    outcomes = [_digest_mismatches(layer, expected, found, tally, (MEMBRANE,))]
    if layer in expected.spike_times:
        # In the same step, the spike, which names a neuron, takes precedence over the digest.
        outcomes.insert(0, _spike_mismatches(layer, expected, found, tally))
    found_any = [outcome for outcome in outcomes if outcome[0]]
    for outcome in sorted(found_any, key=lambda o: o[1].step if o[1] and o[1].step else 0):
        tally.note(layer, *outcome)


def _spike_mismatches(
    layer: str, expected: Recording, found: Recording, tally: _Tally
) -> tuple[int, Divergence | None]:
    """Differences in the spikes of the common steps; a missing spike counts as 0."""
    steps = _common_steps(expected, found)
    events = [r.spike_times[layer] for r in (expected, found)]
    a, b = (rows[rows[:, 1] <= steps] for rows in events)
    # Cause and effect: by step, then sample and neuron.
    places, index = np.unique(np.concatenate([a, b])[:, [1, 0, 2]], axis=0, return_inverse=True)
    values = np.zeros((2, len(places)), np.int64)
    values[0, index.reshape(-1)[: len(a)]] = a[:, 3]
    values[1, index.reshape(-1)[len(a) :]] = b[:, 3]
    different = np.flatnonzero(values[0] != values[1])
    tally.compared += len(places)
    if not len(different):
        return 0, None
    step, sample, neuron = (int(value) for value in places[different[0]])
    sent = (int(value) for value in values[:, different[0]])
    place = tuple(int(i) for i in np.unravel_index(neuron, expected.meta["shapes"][layer]))
    return len(different), Divergence(layer, "spikes", step, sample, place, *sent)


def _compare_counts(expected: Recording, found: Recording, tally: _Tally) -> None:
    for layer in expected.counts:
        _compare_array("counts", expected.counts[layer], found.counts[layer], layer, None, tally)
