"""Types of the functions that long work calls to say how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the samples (or points) done, and those in all."""
StageProgress = Callable[[str, int, int], None]
"""Called with the name of the current stage, the samples done in it, and those in all."""
