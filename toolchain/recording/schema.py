"""Required content of a recording: its meta data by declared types, arrays by type and shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from toolchain.documents import as_error
from toolchain.errors import RecordingError

if TYPE_CHECKING:
    from toolchain.recording.recording import Recording

Count = Annotated[int, Meta(ge=0, le=2**62)]
"""A number of things; synops of millions of images stay below the limit."""
Side = Annotated[int, Meta(ge=1, le=1 << 31)]
EVENT_FIELDS = 4
"""Number of fields of an event: sample, step, neuron, spike."""


@dataclass(frozen=True)
class RecordingMeta:
    """The fields of `meta` that readers rely on; others are allowed.

    Early recordings have no `shapes`; those with events always have them.
    """

    recording_version: int
    program: str
    program_hash: str
    backend: str
    mode: Literal["full", "counts", "digest", "events"]
    wake_steps: Annotated[int, Meta(ge=1, le=1 << 20)]
    sleep_steps: Annotated[int, Meta(ge=0, le=1 << 20)]
    layers: Annotated[list[str], Meta(min_length=1)]
    num_samples: Annotated[int, Meta(ge=1)]
    synops: dict[str, Count]
    unsettled: dict[str, Count]
    shapes: dict[str, Annotated[list[Side], Meta(min_length=1, max_length=3)]] | None = None
    data: str | None = None


def check_complete(recording: Recording) -> None:
    """Check that a recording contains exactly what its mode requires, for every layer.

    Raises
    ------
    RecordingError
        If an array is missing, has another type or shape, or is superfluous, or if there is a fault
        with `meta`.
    """
    with as_error(RecordingError, "not a recording", "meta"):
        meta = msgspec.convert(recording.meta, RecordingMeta)
    named = meta.layers if meta.shapes is None and meta.mode != "events" else meta.shapes or ()
    if set(named) != set(meta.layers) or len(set(meta.layers)) != len(meta.layers):
        raise RecordingError("shapes and layers differ", node=meta.program, found=meta.layers)
    unknown = {*recording.outputs} - {*meta.layers}
    if unknown or not recording.outputs:
        raise RecordingError(
            "the outputs are no layers", node=meta.program, found=", ".join(sorted(unknown))
        )
    expected = _expected(meta, [*recording.outputs])
    held = _held(recording)
    for name in sorted({*expected, *held}):
        form = expected.get(name)
        array = held.get(name)
        found = None if array is None else f"{array.dtype} {array.shape}"
        if form is None or array is None or not form.holds(array):
            raise RecordingError(
                "a recording's array is missing, too many, or of another form",
                node=name,
                found=found or "nothing",
                allowed=form or f"nothing in mode {meta.mode}",
            )
    for name, events in recording.spike_times.items():
        _check_events(name, events, meta)


@dataclass(frozen=True)
class _Form:
    """Type and shape of an array; a size of None may be any, and so may those after `...`."""

    dtype: str
    shape: tuple[Any, ...]

    def holds(self, array: np.ndarray) -> bool:
        is_open = self.shape[-1] is ...
        wanted = self.shape[:-1] if is_open else self.shape
        fits = array.ndim > len(wanted) if is_open else array.ndim == len(wanted)
        sides = zip(wanted, array.shape, strict=False)
        return array.dtype == self.dtype and fits and all(w in (None, side) for w, side in sides)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}".replace("None", "any").replace("Ellipsis", "...")


def _expected(meta: RecordingMeta, readouts: list[str]) -> dict[str, _Form]:
    """Form of each array by its name in a file; see `recording` for the table."""
    count, steps = meta.num_samples, meta.wake_steps + meta.sleep_steps
    forms = {"labels": _Form("int64", (count,))}
    for layer in meta.layers:
        shape = (...,) if meta.shapes is None else tuple(meta.shapes[layer])
        if layer in readouts:
            forms[f"output/{layer}"] = _Form("int64", (count, *shape))
        else:
            if meta.mode == "full":
                forms[f"spikes/{layer}"] = _Form("int8", (steps, count, *shape))
            if meta.mode in ("full", "counts"):
                forms[f"counts/{layer}"] = _Form("int32", (count, *shape))
            if meta.mode == "events":
                forms[f"spike_times/{layer}"] = _Form("int32", (None, EVENT_FIELDS))
        if meta.mode == "full":
            forms[f"membrane/{layer}"] = _Form("int32", (steps, count, *shape))
        if meta.mode != "counts":
            forms[f"digest/{layer}"] = _Form("uint8", (steps, 2, 16))
    return forms


def _held(recording: Recording) -> dict[str, np.ndarray]:
    groups: tuple[tuple[str, Mapping[str, np.ndarray]], ...] = (
        ("output", recording.outputs),
        ("spikes", recording.spikes),
        ("membrane", recording.membrane),
        ("counts", recording.counts),
        ("digest", recording.digests),
        ("spike_times", recording.spike_times),
    )
    held = {f"{what}/{name}": array for what, group in groups for name, array in group.items()}
    return {**held, "labels": recording.labels}


def _check_events(name: str, events: np.ndarray, meta: RecordingMeta) -> None:
    """Raise RecordingError if an event has no valid sample, step or neuron of the run."""
    steps = meta.wake_steps + meta.sleep_steps
    neurons = math.prod((meta.shapes or {})[name])
    low, high = np.array([0, 1, 0]), np.array([meta.num_samples - 1, steps, neurons - 1])
    wrong = ((events[:, :3] < low) | (events[:, :3] > high)).any(axis=1)
    if wrong.any():
        raise RecordingError(
            "an event is of no sample, step or neuron of the run",
            node=f"spike_times/{name}",
            found=events[wrong][0].tolist(),
            allowed=f"{low.tolist()} .. {high.tolist()}",
        )
