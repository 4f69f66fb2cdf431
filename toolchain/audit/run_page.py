"""One sample of a recording as an offline HTML page: input, spikes and outputs, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.audit.pages import render
from toolchain.audit.run_pictures import (
    POLARITY,
    Pictures,
    input_picture,
    layer_frames,
    signed_picture,
    spikes_of,
)
from toolchain.program.int_program import IntProgram
from toolchain.recording import Mode, Recording
from toolchain.text import visible

BARS = 20
"""Most numbers of an output that are shown; the page says how many there are."""


def write_run_page(
    program: IntProgram,
    recording: Recording,
    sample: int,
    inputs: np.ndarray,
    without_input: str = "",
) -> str:
    """The page as HTML.

    Parameters
    ----------
    inputs:
        Graded input spikes, int (wake steps, C, H, W) or (wake steps, F); empty if not known.
    without_input:
        Why they are not known.

    Raises
    ------
    RecordingError
        If the recording holds no spikes, or not this sample.
    """
    pictures = Pictures()
    layers = layer_frames(pictures, spikes_of(recording, sample))
    label = int(recording.labels[sample])
    return render(
        "run_page.html",
        name=program.name,
        sample=sample,
        recording=recording.meta,
        label=label if label >= 0 else None,
        chosen=int(recording.predictions[sample]) if recording.is_classifier else None,
        run={
            "wake": program.schedule.wake_steps,
            "steps": program.schedule.num_steps,
            "input": [pictures.add(input_picture(step, program.input.range)) for step in inputs],
            "layers": layers,
            "outputs": [_output(pictures, name, recording, sample) for name in recording.outputs],
            "pictures": pictures.uris,
        },
        shape=" x ".join(map(str, program.input.shape)),
        polarity=len(program.input.shape) == len("CHW") and program.input.shape[0] == POLARITY,
        without_input=without_input,
        has_steps=recording.mode is Mode.FULL,
    )


def _output(pictures: Pictures, name: str, recording: Recording, sample: int) -> dict[str, Any]:
    """A readout after each step, or after the last where no other is recorded.

    A vector as numbers, an image as a picture.
    """
    values = recording.outputs[name][sample][None]
    if name in recording.membrane:
        values = recording.membrane[name][:, sample].astype(np.int64)
    if values.ndim > 2:
        largest = int(np.abs(values).max())
        frames = [pictures.add(signed_picture(step, largest)) for step in values]
        return {"name": visible(name), "pictures": frames}
    shown = np.sort(np.argsort(-values[-1], kind="stable")[:BARS])
    return {
        "name": visible(name),
        "of": values.shape[1],
        "rows": shown.tolist(),
        "values": values[:, shown].tolist(),
    }
