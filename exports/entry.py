"""What a target cannot express, or holds otherwise: the entries that an export returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(str, Enum):
    """Treatment of a property that a target cannot express."""

    FOLDED = "folded"
    """Included in a number that the target has: any tool gives the same bits."""
    METADATA = "metadata"
    """Stored in the metadata, which other tools ignore."""
    DURING_RUN = "set during the run"
    """Set, step by step, by the program that is written beside the network."""


@dataclass(frozen=True)
class Entry:
    """One property that a target cannot express."""

    what: str
    where: str
    fate: Fate
    consequence: str
