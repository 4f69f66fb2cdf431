"""What a neuron process hands its spikes and membrane potentials to after each local step.

Reading a Var costs Lava about 19 us an element, so what a run is to keep is gathered inside the
processes; what becomes of it is decided by who starts the run (see `exports.lava`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

SPIKE_BITS = 8
"""Signed width of a recorded spike."""


class Recorder(Protocol):
    """Takes the local steps of one population in order."""

    def step(self, now: tuple[int, int], spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Take one local step.

        Parameters
        ----------
        now:
            Sample (or batch of samples) from 0, and local step from 1.
        spikes:
            Integers in Lava's order, (W, H, C) or (F,), with the batch in front where there is
            one; None by a readout.
        membrane:
            int32, in the same axes, after firing; of a LIPool the largest count of its window, of a
            relay 0.
        """
