"""Events of images that move over a sensor as those of N-MNIST did, in its file format.

Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades"
(Frontiers in Neuroscience 2015) move a camera in front of digits by three saccades of 100 ms, along
an isosceles triangle. Here a digit of 28x28 pixels moves over 34x34, so that the triangle's corners
lie at (-3, 3), (0, -3) and (3, 3) pixels from the middle; along each side it starts and stops
smoothly, as half a cosine. A pixel sends an event for each `THRESHOLD` by which its intensity
differs from that at its last event. Intensities are integers, so that no rounding decides what is
sent where a pixel comes back to an earlier one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CORNERS = ((-3.0, 3.0), (0.0, -3.0), (3.0, 3.0))
"""Where the triangle's sides meet, (x, y) in pixels."""
SACCADE = 100_000
"""Microseconds along one side."""
MOMENTS = 40
"""Pictures of a saccade."""
SIZE = 34
WHITE = 10_000
"""Intensity of the brightest pixel."""
THRESHOLD = WHITE // 5
TOGETHER = 100
"""Images whose events are made at the same time."""


def write_nmnist(folder: Path, images: np.ndarray, labels: np.ndarray) -> int:
    """Write `<label>/<index>.bin` for images, uint8 (N, 28, 28); returns the number of events."""
    written = 0
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for first in range(0, len(images), TOGETHER):
        some = images[first : first + TOGETHER] / 255
        for index, events in enumerate(_events(some), first):
            name = folder / str(labels[index]) / f"{index:05}.bin"
            name.write_bytes(events)
            written += len(events) // 5
    return written


def _events(images: np.ndarray) -> list[bytes]:
    """The events of each image, float (n, 28, 28), as bytes of N-MNIST's files."""
    rows: list[list[np.ndarray]] = [[] for _ in images]
    last = _moved(images, *CORNERS[0])
    for moment in range(1, 3 * MOMENTS + 1):
        change = _moved(images, *_place(moment)) - last
        number = np.sign(change) * (np.abs(change) // THRESHOLD)
        last += number * THRESHOLD
        image, y, x = number.nonzero()
        times = np.abs(number[image, y, x])
        on = number[image, y, x] > 0
        t = moment * SACCADE // MOMENTS
        records = np.empty((len(x), 5), np.uint8)
        records[:, 0], records[:, 1] = x, y
        records[:, 2] = on << 7 | t >> 16
        records[:, 3], records[:, 4] = t >> 8 & 255, t & 255
        ends = np.searchsorted(np.repeat(image, times), np.arange(1, len(images)))
        parts = np.split(np.repeat(records, times, axis=0), ends)
        for of_one, part in zip(rows, parts, strict=True):
            of_one.append(part)
    return [np.concatenate(of_one).tobytes() for of_one in rows]


def _place(moment: int) -> tuple[float, float]:
    """(x, y) from the middle at a moment, from 0, of three saccades."""
    side, along = divmod(moment, MOMENTS)
    (x0, y0), (x1, y1) = CORNERS[side % 3], CORNERS[(side + 1) % 3]
    share = (1 - np.cos(np.pi * along / MOMENTS)) / 2
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


def _moved(images: np.ndarray, x: float, y: float) -> np.ndarray:
    """Images, (n, 28, 28), moved by (x, y) from the sensor's middle: bilinear, int64 (n, H, W)."""
    margin = (SIZE - images.shape[1]) // 2
    column, row = int(np.floor(x)), int(np.floor(y))
    right, down = x - column, y - row
    moved = np.zeros((len(images), SIZE + 1, SIZE + 1))
    for dy, wy in ((0, 1 - down), (1, down)):
        for dx, wx in ((0, 1 - right), (1, right)):
            top, left = margin + row + dy, margin + column + dx
            part = moved[:, top : top + images.shape[1], left : left + images.shape[2]]
            part += wy * wx * images
    return np.rint(WHITE * moved[:, :SIZE, :SIZE]).astype(np.int64)
