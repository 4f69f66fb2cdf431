"""What a recording contains: beside the room of recordings, which needs NumPy."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """What a recording contains of each layer, see `toolchain.recording.recording`."""

    FULL = "full"
    COUNTS = "counts"
    DIGEST = "digest"
    EVENTS = "events"
