"""`show`: one sample of a recording as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikeport.files import as_program
from spikeport.running import open_for
from spikeport.samples import Data
from toolchain.errors import RecordingError, SpikeportError
from toolchain.files import atomic_write
from toolchain.learning.data import Dataset, input_spikes
from toolchain.output_policy import PAGE, check_output
from toolchain.recording import Recording

if TYPE_CHECKING:
    from toolchain.conversion.pipeline import Conversion
    from toolchain.program.int_program import IntProgram


def check_program(recording: Recording, program: IntProgram) -> None:
    """Raise RecordingError unless `recording` was made with `program`."""
    if recording.meta["program_hash"] != program.hash:
        raise RecordingError(
            "a recording was made with another network",
            node=program.name,
            found=recording.meta["program_hash"][:16],
            allowed=program.hash[:16],
        )


def show(
    recording: Recording | str | Path,
    program: IntProgram | Conversion | str | Path,
    path: str | Path,
    *,
    sample: int = 0,
    data: Data | None = None,
) -> str:
    """Write one offline page of a sample: its input, all spikes and the outputs, step by step.

    Parameters
    ----------
    recording:
        Made with record="full" or "events"; or its file.
    program:
        The network of the recording: a result of `convert` or `load`, or a `.net` file.
    path:
        Of the page (.html).
    sample:
        Index of the sample in the recording.
    data:
        Samples of the recording, as in `run`, which show the input; by default the source that the
        recording names.

    Returns
    -------
    Why the page shows no input; empty if it does.

    Raises
    ------
    RecordingError
        If the recording holds no spikes of single neurons, not this sample, or was made with
        another network or other data.
    SpikeportError
        If a file cannot be read, or the page cannot be written.
    """
    from toolchain.audit.run_page import write_run_page

    file = Path(path)
    check_output(file, PAGE, [Path(p) for p in (recording, program) if isinstance(p, str | Path)])
    loaded = as_program(program)
    recorded = recording if isinstance(recording, Recording) else Recording.load(recording)
    check_program(recorded, loaded)
    missing, inputs = "", np.empty(0)
    if data is not None:
        inputs = _inputs(loaded, recorded, data, sample)
    elif "data" not in recorded.meta:
        missing = "not shown: the recording does not name its data"
    else:
        try:
            inputs = _inputs(loaded, recorded, str(recorded.meta["data"]), sample)
        except SpikeportError as error:
            missing = f"not shown: {error.message}"
    atomic_write(file, write_run_page(loaded, recorded, sample, inputs, missing).encode())
    return missing


def _inputs(program: IntProgram, recording: Recording, data: Data, sample: int) -> np.ndarray:
    """Graded input spikes of a sample on each wake step, int (wake steps, ...)."""
    found = open_for(program, data)
    labels = found.labels if isinstance(found, Dataset) else recording.labels
    if len(found) != recording.num_samples or not np.array_equal(labels, recording.labels):
        raise RecordingError(
            "the recording was made with other samples",
            node=found.name,
            found=f"{len(found)} samples",
            allowed=f"{recording.num_samples} with the same labels",
        )
    if not 0 <= sample < len(found):
        return np.empty(0)
    (spikes,) = input_spikes(program.input, found.take(slice(sample, sample + 1)))
    return np.broadcast_to(spikes, (program.schedule.wake_steps, *program.input.shape))
