"""Background activity of an event camera, taken out: events that no neighbour supports.

Delbruck, "Frame-free dynamic digital vision" (Symposium on Secure-Life Electronics, Tokyo 2008): an
event passes if one of the eight neighbouring pixels had an event shortly before, whatever its
polarity. Events that do not pass support others all the same.
"""

from __future__ import annotations

import numpy as np

from toolchain.learning.data.camera_events import Events

NEIGHBOURS = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0))


def supported(events: Events, window: int) -> np.ndarray:
    """Whether an event has support, bool (E,), of events in the order of time on a sensor.

    Parameters
    ----------
    window:
        Longest time in microseconds since the latest earlier event of a neighbour. Of events of
        one time the one that comes first in the file is the earlier.
    """
    count = len(events.t)
    width = int(events.x.max(initial=0)) + 3
    pixel = (events.y + 1) * width + events.x + 1  # a margin: every pixel has eight neighbours
    # By pixel, then by order in the file: so the places of a neighbour's events come sorted too.
    keys = np.sort(pixel * count + np.arange(count))
    pixel, order = np.divmod(keys, max(count, 1))
    time = events.t[order]
    found = np.zeros(count, bool)
    for dx, dy in NEIGHBOURS:
        distance = dy * width + dx
        place = np.searchsorted(keys, keys + distance * count) - 1
        before = np.maximum(place, 0)
        there = (place >= 0) & (pixel[before] == pixel + distance)
        found[order] |= there & (time - time[before] <= window)
    return found
