"""Interface through which neuron processes record spikes and membrane potentials.

Reading a Var through Lava is slow for each element, so recordings are gathered inside the
processes. `exports.lava` decides what is recorded.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

SPIKE_BITS = 8
"""Signed width of a recorded spike."""


class Recorder(Protocol):
    """Recorder of the local steps of one population, in order."""

    def step(self, now: tuple[int, int], spikes: np.ndarray | None, membrane: np.ndarray) -> None:
        """Record one local step.

        Parameters
        ----------
        now:
            Sample (or batch of samples) from 0, and local step from 1.
        spikes:
            Integers in Lava's order, (W, H, C) or (F,), after the batch axis if there is one; None
            from a readout.
        membrane:
            int32, with the same axes, after firing; for a LIPool the largest count of its window,
            for a relay 0.
        """
