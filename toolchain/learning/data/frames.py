"""Frames of events: counts per pixel and polarity in parts of a recording, one for each step.

A frame has two channels, of events that became darker (0) and brighter (1), or one of both. Nothing
is lost: events behind the last frame are an error, unless the binning says that they are cut off,
and so are more than 255 in one place of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.camera_events import Events, Size

MOST_FRAMES = 1 << 16
MOST_COUNTED = 255
ALLOWED = (
    "frames=T, and if wanted window=MICROSECONDS or count=EVENTS, size=WIDTHxHEIGHT, down=K, "
    "denoise=MICROSECONDS, merge, cut"
)
FLAGS = ("merge", "cut")
NUMBERS = ("frames", "window", "count", "down", "denoise")


@dataclass(frozen=True)
class Binning:
    """How a recording becomes frames.

    Attributes
    ----------
    frames:
        Number of frames T.
    window:
        Length of a frame in microseconds, from the first event on. Without `window` and `count`,
        the time from the first to the last event is divided into T equal parts.
    count:
        Events of a frame.
    size:
        (width, height) of the sensor, where the files do not state it.
    down:
        Pixels along each axis that become one, with all their events.
    denoise:
        Time in microseconds: an event stays only if a neighbouring pixel had one within it (see
        `denoise`). This comes first.
    merge:
        Whether a frame has one channel for events of both polarities.
    cut:
        Whether events behind the last frame are left out.
    """

    frames: int
    window: int | None = None
    count: int | None = None
    size: Size | None = None
    down: int = 1
    denoise: int | None = None
    merge: bool = False
    cut: bool = False

    @classmethod
    def parse(cls, text: str, node: str) -> Binning:
        """The binning that `text` says, such as "frames=10,window=5000,down=2,cut".

        Raises
        ------
        DataError
            If it says no number of frames, or something else.
        """
        found: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in _PARSED or name in found or not _PARSED[name][0].fullmatch(part):
                raise DataError("no such binning", node=node, found=part, allowed=ALLOWED)
            found[name] = _PARSED[name][1](value)
        if "frames" not in found or {"window", "count"} <= set(found):
            raise DataError(
                "the frames of the events are not said", node=node, found=text, allowed=ALLOWED
            )
        for name in set(found) & {*NUMBERS}:
            if not found[name] >= 1 or (name == "frames" and found[name] > MOST_FRAMES):
                raise DataError("no such binning", node=node, found=f"{name}={found[name]}")
        return cls(**found)

    def frame_size(self, size: Size, node: str) -> Size:
        """(width, height) of the frames of a sensor of `size`.

        Raises
        ------
        DataError
            If `down` does not divide both.
        """
        if size[0] % self.down or size[1] % self.down:
            raise DataError(
                "down= does not divide the sensor",
                node=node,
                found=f"{size[0]}x{size[1]} pixels by {self.down}",
                allowed="a common divisor of width and height",
            )
        return (size[0] // self.down, size[1] // self.down)

    def binned(self, events: Events, size: Size, node: str) -> np.ndarray:
        """Counts of checked events, uint8 (T, 2, H, W), or (T, 1, H, W) if polarities are merged.

        Raises
        ------
        DataError
            If events lie behind the last frame, there are too few for all, or too many in a place.
        """
        step = self._places(events)
        behind = step >= self.frames
        if behind.any() and not self.cut:
            raise DataError(
                "events lie behind the last frame",
                node=node,
                found=f"{int(behind.sum())} of {len(step)}",
                allowed=f"{self.frames} frames, and {int(step[-1]) + 1} are needed",
                remedy="more or longer frames; or cut, to leave them out",
            )
        if self.count is not None and len(step) < self.frames * self.count:
            raise DataError(
                "too few events for all frames",
                node=node,
                found=len(step),
                allowed=f">= {self.frames} frames of {self.count}",
            )
        width, height = self.frame_size(size, node)
        place = step if self.merge else step * 2 + events.on
        place = (place * height + events.y // self.down) * width + events.x // self.down
        shape = (self.frames, 1 if self.merge else 2, height, width)
        counts = np.bincount(place[~behind], minlength=int(np.prod(shape)))
        if counts.max() > MOST_COUNTED:
            raise DataError(
                "too many events in one place of a frame",
                node=node,
                found=int(counts.max()),
                allowed=f"<= {MOST_COUNTED}",
                remedy="more frames, or a smaller down=",
            )
        return counts.reshape(shape).astype(np.uint8)

    def _places(self, events: Events) -> np.ndarray:
        """The frame of each event, from 0, int64 (E,)."""
        since = events.t - events.t[0]
        if self.count is not None:
            return np.arange(len(since)) // self.count
        if self.window is not None:
            return since // self.window
        return since * self.frames // (since[-1] + 1)


def _pixels(text: str) -> Size:
    width, height = text.split("x")
    return (int(width), int(height))


_PARSED: dict[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    **{n: (re.compile(rf"{n}=\d{{1,15}}"), int) for n in NUMBERS},
    "size": (re.compile(r"size=[1-9]\d{0,5}x[1-9]\d{0,5}"), _pixels),
    **{flag: (re.compile(flag), lambda _: True) for flag in FLAGS},
}
assert set(_PARSED) == {field.name for field in fields(Binning)}
OPTIONS = re.compile(
    rf"^(?P<path>.*?)(?P<options>(?:,(?:[a-z]+=[^,/]*|{'|'.join(FLAGS)}))*)$", re.S
)
"""A path and what follows it of a binning."""
