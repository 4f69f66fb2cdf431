"""Checksum of a run, which the C source computes too.

CRC-32 (ISO 3309, as in zlib) of what each local step leaves behind, layer by layer in the program's
order: spikes as bytes, then membrane potentials as four bytes, the lowest first. Values of a layer
are in (C, H, W) or (F,) order. A readout has no spikes, a relay no potential.
"""

from __future__ import annotations

import zlib

import numpy as np

from toolchain.program.int_program import IntProgram
from toolchain.program.neurons import Readout, Relay
from toolchain.recording import Recording


def checksums(program: IntProgram, recording: Recording) -> np.ndarray:
    """Of the samples of a full recording, after each local step: uint32 (N, T)."""
    sums = np.zeros((recording.num_samples, program.schedule.num_steps), np.uint32)
    for sample, row in enumerate(sums):
        crc = 0
        for step in range(len(row)):
            for population in program.populations:
                name, neuron = population.name, population.neuron
                if not isinstance(neuron, Readout):
                    crc = zlib.crc32(recording.spikes[name][step, sample].tobytes(), crc)
                if not isinstance(neuron, Relay):
                    potentials = recording.membrane[name][step, sample].astype("<i4")
                    crc = zlib.crc32(potentials.tobytes(), crc)
            row[step] = crc
    return sums
