"""Recording of a population inside its Lava process, written to a file chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from toolchain.files import atomic_path
from toolchain.recording import LayerRecord, LayerRecorder


class ProcessRecorder:
    """A `hw_models.recorder.Recorder` that feeds a `LayerRecorder`, a new one for each chunk.

    Parameters
    ----------
    make:
        Makes a `LayerRecorder`.
    path:
        `.npz` file of a chunk by its number, written after the last step of its last sample.
    chunk:
        Samples of a chunk, a multiple of the batch.
    progress:
        File whose length is the number of finished samples, or None.
    num_steps:
        Local steps per sample.
    """

    def __init__(
        self,
        make: Callable[[], LayerRecorder],
        path: Callable[[int], Path],
        num_samples: int,
        chunk: int,
        batch: int,
        num_steps: int,
        progress: Path | None = None,
    ) -> None:
        self._make, self._path, self._progress = make, path, progress
        self._num_samples, self._chunk, self._batch = num_samples, chunk, batch
        self._num_steps = num_steps
        self._recorder = make()

    def step(self, now: tuple[int, int], spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Record one local step, see `hw_models.recorder.Recorder`."""
        index, local_step = now
        count = min(self._batch, self._num_samples - index * self._batch)
        sent = None if spikes is None else self._samples(spikes, count).astype(np.int8)
        self._recorder.step(local_step, sent, self._samples(membrane, count))
        if local_step < self._num_steps:
            return
        if self._progress:
            with self._progress.open("ab") as file:
                file.write(bytes(count))
        done = index * self._batch + count
        if done % self._chunk == 0 or done == self._num_samples:
            record, self._recorder = self._recorder.finish(), self._make()
            path = self._path((done - 1) // self._chunk)
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, **record.arrays())  # type: ignore[arg-type]

    def _samples(self, values: np.ndarray, count: int) -> np.ndarray:
        """The first `count` samples, (n, H, W, C) or (n, F), of values in Lava's order."""
        batched = values if values.ndim in (2, 4) else values[None]
        return batched[:count].swapaxes(1, 2) if batched.ndim == 4 else batched[:count]


def read_record(path: Path) -> LayerRecord:
    """The record that a `ProcessRecorder` has written; raises OSError if there is none."""
    with np.load(path, allow_pickle=False) as file:
        return LayerRecord.of_arrays({name: file[name] for name in file.files})
