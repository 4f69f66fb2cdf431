"""A layer of lava-dl's CUBA networks, in plain integers as a file stores it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolchain.program.synapse import ConvSynapse, DenseSynapse

MAX_DELAY = 62
"""Longest delay in steps (lava-dl 0.6.0, netx `hdf5.py`, `create_dense`)."""


@dataclass(frozen=True)
class CubaNeuron:
    """Constants of Lava's LIF in its own units.

    Attributes
    ----------
    threshold:
        Mantissa; the neuron fires when `v > threshold << 6`, then `v = 0`.
    current_decay, voltage_decay:
        Decay of the state per step, of 4096; with 4096 nothing remains.
    """

    threshold: int
    current_decay: int
    voltage_decay: int


@dataclass(frozen=True, eq=False)
class CubaLayer:
    """One block of a stock netx file.

    Attributes
    ----------
    shape, source_shape:
        (C, H, W) or (F,) of the layer and of its source; both are equal for an input layer.
    synapse:
        Synapse; None for an input layer, whose current is the neurons' bias.
    bias:
        int32 (C,) or (F,) in weight units, or None.
    delays:
        int (F_out, F_in) in steps, or None.
    message_bits:
        Message bits of the incoming spikes; 0 for unary ones.
    transform:
        (weight, bias) of an input layer, with which the host turns an image into a bias.
    """

    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    synapse: ConvSynapse | DenseSynapse | None
    neuron: CubaNeuron
    bias: np.ndarray | None = None
    delays: np.ndarray | None = None
    message_bits: int = 0
    transform: tuple[int, int] | None = None

    @property
    def kind(self) -> str:
        """Name of the block's type in netx."""
        if self.synapse is None:
            return "Input"
        return "Conv" if isinstance(self.synapse, ConvSynapse) else "Dense"
