"""Events of moving images for the benchmark of sequences, by a plain loop."""

from collections import Counter

import numpy as np
from scipy.ndimage import shift

from benchmarks.saccades import write_nmnist
from toolchain.learning.data import open_split
from toolchain.learning.data.event_files import read_events

CORNERS = ((-3, 3), (0, -3), (3, 3))


def by_hand(image):
    """Events (t, x, y, brighter): one for each fifth of the range since a pixel's last event."""
    wide = np.pad(image / 255, 3)
    last, events = None, Counter()
    for moment in range(3 * 40 + 1):
        (x0, y0), (x1, y1) = CORNERS[moment // 40 % 3], CORNERS[(moment // 40 + 1) % 3]
        share = (1 - np.cos(np.pi * (moment % 40) / 40)) / 2
        place = (y0 + share * (y1 - y0), x0 + share * (x1 - x0))
        now = np.rint(10_000 * shift(wide, place, order=1)).astype(int)
        last = now.copy() if last is None else last
        for y, x in np.ndindex(now.shape):
            while abs(now[y, x] - last[y, x]) >= 2000:
                up = now[y, x] > last[y, x]
                last[y, x] += 2000 if up else -2000
                events[2500 * moment, x, y, up] += 1
    return events


def test_events_of_moving_images(tmp_path):
    images = np.zeros((2, 28, 28), np.uint8)
    images[:, 8:20, 9:19] = np.random.default_rng(3).integers(0, 256, (2, 12, 10))
    labels = np.array([7, 2])
    expected = [by_hand(image) for image in images]
    written = write_nmnist(tmp_path / "Test", images, labels)
    assert written == sum(sum(events.values()) for events in expected) > 1000
    for index, label in enumerate(labels):
        found = read_events(tmp_path / "Test" / str(label) / f"{index:05}.bin")
        found.check("saccades", (34, 34))
        rows = Counter(zip(found.t, found.x, found.y, found.on, strict=True))
        assert rows == expected[index]
    data = open_split(f"nmnist:{tmp_path},frames=8")
    assert (data.samples.sum(), data.labels.tolist()) == (written, [0, 1])
