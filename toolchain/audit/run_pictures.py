"""One sample of a recording as pictures, one per layer and step.

A picture shows a layer's channels side by side, a pixel per neuron; a vector is folded into a
square. Nothing is left out or added up.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Any

import numpy as np
from PIL import Image

from toolchain.errors import RecordingError
from toolchain.int_range import IntRange
from toolchain.recording import Mode, Recording
from toolchain.text import visible

POSITIVE, NEGATIVE, GAP = (31, 119, 234), (224, 108, 20), (128, 128, 128)
"""Colours of spikes, of negative ones, and of lines between channels."""
FAINTEST = 90
"""Opacity of the smallest spike, of 255."""
LARGEST = 127
"""Magnitude of the strongest colour."""
PIXELS = 255
RGB, POLARITY = 3, 2
"""Channels that are shown as colours, and as events of two signs."""


@dataclass
class Pictures:
    """PNG pictures as data URIs, each of which is kept once."""

    uris: list[str] = field(default_factory=list)
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def add(self, image: Image.Image) -> int:
        """Number of this picture in `uris`."""
        memory = io.BytesIO()
        image.save(memory, "PNG")
        data = memory.getvalue()
        if data not in self._numbers:
            self._numbers[data] = len(self.uris)
            self.uris.append("data:image/png;base64," + base64.b64encode(data).decode())
        return self._numbers[data]


def spikes_of(recording: Recording, sample: int) -> dict[str, np.ndarray]:
    """Spikes of one sample by layer, int8 (T, C, H, W) or (T, F).

    Raises
    ------
    RecordingError
        If the recording holds no spikes, or not this sample.
    """
    if recording.mode not in (Mode.FULL, Mode.EVENTS):
        raise RecordingError(
            "the recording holds no spikes of single neurons",
            found=recording.mode.value,
            allowed="full or events",
            remedy='record the samples that you want to see again, with record="events"',
        )
    if not 0 <= sample < recording.num_samples:
        raise RecordingError(
            "the recording has no such sample",
            node="sample",
            found=sample,
            allowed=f"0 .. {recording.num_samples - 1}",
        )
    if recording.mode is Mode.FULL:
        return {name: spikes[:, sample] for name, spikes in recording.spikes.items()}
    steps = recording.meta["wake_steps"] + recording.meta["sleep_steps"]
    found = {}
    for name, events in recording.spike_times.items():
        shape = tuple(recording.meta["shapes"][name])
        spikes = np.zeros((steps, int(np.prod(shape))), np.int8)
        mine = events[events[:, 0] == sample]
        spikes[mine[:, 1] - 1, mine[:, 2]] = mine[:, 3]
        found[name] = spikes.reshape(steps, *shape)
    return found


def tiled(values: np.ndarray, gap: int) -> np.ndarray:
    """Channels (C, H, W) side by side, with lines of `gap` between them; (F,) as a square."""
    if values.ndim == 1:
        across = ceil(sqrt(len(values)))
        square = np.full(across * -(-len(values) // across), gap, values.dtype)
        square[: len(values)] = values
        return square.reshape(-1, across)
    channels, height, width = values.shape
    across = ceil(sqrt(channels * height / width)) if channels > 1 else 1
    down = -(-channels // across)
    tiles = np.full((down * across, height + 1, width + 1), gap, values.dtype)
    tiles[:channels, :-1, :-1] = values
    rows = tiles.reshape(down, across, height + 1, width + 1).swapaxes(1, 2)
    return rows.reshape(down * (height + 1), across * (width + 1))[:-1, :-1]


def signed_picture(values: np.ndarray, largest: int) -> Image.Image:
    """Integers (C, H, W) or (F,) in colour: zeros transparent, `largest` in magnitude strongest."""
    sizes = np.ceil(np.abs(values.astype(np.float64)) * LARGEST / max(largest, 1))
    index = (np.sign(values) * np.minimum(sizes, LARGEST)).astype(np.int16) + LARGEST + 1
    image = Image.fromarray(tiled(index, 0).astype(np.uint8), "P")
    image.putpalette(_palette(), "RGBA")
    return image


def _palette() -> bytes:
    """RGBA of the bytes: 0 for the lines, then -127 .. 127."""
    colours = [(*GAP, PIXELS)]
    for value in range(-LARGEST, LARGEST + 1):
        opacity = FAINTEST + (PIXELS - FAINTEST) * abs(value) // LARGEST if value else 0
        colours.append((*(POSITIVE if value > 0 else NEGATIVE), opacity))
    return bytes(part for colour in colours for part in colour)


def input_picture(values: np.ndarray, span: IntRange) -> Image.Image:
    """Graded input spikes: RGB, events of two polarities (the first less the second), or grey."""
    if values.ndim == len("CHW") and len(values) == POLARITY:
        return signed_picture((values[0].astype(np.int64) - values[1])[None], span.high)
    bright = (values.astype(np.float64) - span.low) * PIXELS / max(span.high - span.low, 1)
    pixels = bright.round().astype(np.uint8)
    if pixels.ndim == len("CHW") and len(pixels) == RGB:
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), "RGB")
    return Image.fromarray(tiled(pixels, PIXELS // 2), "L")


def layer_frames(pictures: Pictures, spikes: dict[str, np.ndarray]) -> Sequence[dict[str, Any]]:
    """By layer: name, shape, the number of the picture of each step, and spikes in each step."""
    return [_frames(pictures, name, of_layer) for name, of_layer in spikes.items()]


def _frames(pictures: Pictures, name: str, spikes: np.ndarray) -> dict[str, Any]:
    shape = spikes.shape[1:]
    sizes = np.abs(spikes.astype(np.int64)).reshape(len(spikes), -1)
    largest = int(sizes.max())
    return {
        "name": visible(name),
        "shape": " x ".join(map(str, shape)),
        "neurons": sizes.shape[1],
        "pictures": [pictures.add(signed_picture(step, largest)) for step in spikes],
        "spikes": sizes.sum(axis=1).tolist(),
        "firing": np.count_nonzero(sizes, axis=1).tolist(),
    }
