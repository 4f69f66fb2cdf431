"""The events of one recording, as every format gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolchain.errors import DataError

Size = tuple[int, int]
"""(width, height) of a sensor, in pixels."""


@dataclass(frozen=True)
class Events:
    """The events of one recording, in the order of the file.

    Attributes
    ----------
    t:
        Times in microseconds, int64 (E,).
    x, y:
        Columns from the left and rows from the top, int64 (E,).
    on:
        Whether it became brighter, bool (E,).
    size:
        The sensor's, where the file states it.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    size: Size | None = None

    def take(self, chosen: np.ndarray | slice) -> Events:
        """The events at `chosen`, in that order."""
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.on[chosen], self.size)

    def check(self, node: str, size: Size) -> None:
        """Check the events against a sensor of `size`, (width, height).

        Raises
        ------
        DataError
            If there is none, time runs backwards, or an event lies outside the sensor.
        """
        if not len(self.t):
            raise DataError("the recording has no events", node=node)
        (back,) = (np.diff(self.t) < 0).nonzero()
        if len(back):
            first = int(back[0])
            raise DataError(
                "time runs backwards",
                node=node,
                found=f"event {first + 1} at {self.t[first + 1]} us, behind {self.t[first]} us",
                remedy="sort the events by time, if they only lie in another order",
            )
        for name, values, limit in (("x", self.x, size[0]), ("y", self.y, size[1])):
            (outside,) = ((values < 0) | (values >= limit)).nonzero()
            if len(outside):
                raise DataError(
                    "an event lies outside the sensor",
                    node=node,
                    found=f"{name} = {values[outside[0]]} in event {outside[0]}",
                    allowed=f"0 .. {limit - 1}, of {size[0]}x{size[1]} pixels",
                    remedy="size=WIDTHxHEIGHT in the data source, if the sensor is larger",
                )


def records(data: bytes, kind: np.dtype, path: Path) -> np.ndarray:
    """The records in `data`; raises DataError if the last one is cut off."""
    if len(data) % kind.itemsize:
        raise DataError(
            "the file is truncated",
            node=str(path),
            found=f"{len(data) % kind.itemsize} bytes at the end",
            allowed=f"records of {kind.itemsize} bytes",
        )
    return np.frombuffer(data, kind) if data else np.empty(0, kind)
