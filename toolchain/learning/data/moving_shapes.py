"""Events of shapes that move, as an event camera sees them; drawn when needed.

A square, a disc or a cross of random size and path crosses 16x16 pixels to the right, left, bottom
or top, which are the classes. What it covers becomes brighter, what it leaves darker; some pixels
send an event without a cause. Samples are counts in 8 frames of equal time, (N, 8, 2, 16, 16).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.camera_events import Events
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.frames import Binning

SIZE, FRAMES = 16, 8
DIRECTIONS = ("right", "left", "down", "up")
SAMPLES = {"train": 2000, "test": 400}
SEEDS = {"train": 1, "test": 2}
MOMENTS = 64
"""Pictures from which the events of a sample are made."""
NOISE = 24
"""Events without a cause, per sample."""


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split; takes no path."""
    if path is not None:
        raise DataError(
            "moving shapes are drawn, and take no path", node="moving-shapes", found=path
        )
    rng = np.random.default_rng(SEEDS[split])
    binning, size = Binning(FRAMES), (SIZE, SIZE)
    labels = np.arange(SAMPLES[split]) % len(DIRECTIONS)
    frames = [binning.binned(_events(rng, int(label)), size, "moving-shapes") for label in labels]
    return Dataset("moving-shapes", np.stack(frames), None, labels.astype(np.int64), DIRECTIONS)


def _events(rng: np.random.Generator, direction: int) -> Events:
    """Events of one sample, in the order of time."""
    at = rng.uniform(-3, 3) + np.linspace(0, rng.uniform(9, 14), MOMENTS)
    across, reach = rng.uniform(4, 12), rng.uniform(1.5, 3.5)
    pictures = _pictures(at, across, reach, int(rng.integers(3)))
    change = np.diff(pictures.astype(np.int8), axis=0)
    noise = tuple(rng.integers(0, end, NOISE) for end in change.shape)
    change[noise] = rng.choice([-1, 1], NOISE)
    t, y, x = change.nonzero()
    on = change[t, y, x] > 0
    if direction in (1, 3):
        x = SIZE - 1 - x
    if direction in (2, 3):
        x, y = y, x
    return Events(t, x, y, on)


def _pictures(at: np.ndarray, across: float, reach: float, shape: int) -> np.ndarray:
    """Where a shape is that moves to the right, bool (M, H, W); its middle is at x = `at`, (M,)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    right, down = np.abs(x - at[:, None, None]), np.abs(y - across)
    if shape == 0:
        return np.maximum(right, down) <= reach
    if shape == 1:
        return right**2 + down**2 <= reach**2
    return (np.minimum(right, down) <= reach / 3) & (np.maximum(right, down) <= reach)
