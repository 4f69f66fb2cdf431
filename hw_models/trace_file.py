"""What a neuron process leaves behind: one binary record a local step, appended as it runs.

Reading a Var costs Lava about 19 us an element, so spikes and membrane potentials go straight to
a file. A record is the spikes (int8, absent for a readout) and then the membrane potentials
(int32, little-endian), both in the process's own axis order.
"""

from __future__ import annotations

import os

import numpy as np

SPIKE_BITS = 8
"""Signed width of a recorded spike."""


class TraceFile:
    """Appends records to `path`; an empty path means that nothing is recorded."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if path else None

    def append(self, spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Write one record; raises OSError if the disk is full."""
        if self._file is None:
            return
        record = b"" if spikes is None else spikes.astype(np.int8).tobytes()
        record += membrane.astype("<i4").tobytes()
        written = 0
        while written < len(record):
            written += os.write(self._file, record[written:])
