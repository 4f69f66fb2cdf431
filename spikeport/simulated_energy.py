"""Energy and latency of a program on Loihi, simulated by SANA-FE, with every spike compared."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from exports.sanafe import run_folder, write_sanafe
from spikeport.backends import Reference
from spikeport.chips import cut_chip
from toolchain.audit.placement import place
from toolchain.program.int_program import IntProgram

COUNTS = ("messages", "synops", "updates", "events")


def in_sanafe(program: IntProgram, inputs: np.ndarray, time_limit: float) -> dict[str, Any]:
    """Figures per sample of graded input spikes, int (N, ...), placed on Loihi's cores.

    Returns
    -------
    `nanojoules` by part of the chip, with the `total`, `microseconds`, numbers of `messages`,
    `synops`, `updates` of neurons and `events` (spikes sent); of all samples, spikes and
    outputs `compared` with the reference simulator, and `mismatches`.

    Raises
    ------
    MissingDependencyError
        If SANA-FE is not installed.
    TargetError
        If its neurons or its chip cannot hold the program.
    BackendRunError
        If it fails, or takes longer than `time_limit` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="spikeport-") as place_of_files:
        folder = Path(place_of_files)
        write_sanafe(program, place(program, cut_chip("loihi1")).homes(), inputs, folder)
        found = run_folder(folder, time_limit=time_limit)
    samples = found["samples"]
    recording = Reference().run(program, inputs)
    compared = mismatches = 0
    for population in program.spiking:
        expected = recording.spikes[population.name]
        fired = np.zeros((*expected.shape[:2], int(np.prod(population.shape))), expected.dtype)
        for index, sample in enumerate(samples):
            for step, neurons in enumerate(sample["spikes"][population.name]):
                fired[step, index, neurons] = 1
        compared += expected.size
        mismatches += int((fired.reshape(expected.shape) != expected).sum())
    for name, sums in recording.outputs.items():
        compared += sums.size
        found_sums = np.array([sample["outputs"][name] for sample in samples])
        mismatches += int((found_sums.reshape(sums.shape) != sums).sum())
    count = len(samples)
    parts = samples[0]["energy"]
    return {
        "simulator": f"SANA-FE {found['sanafe']}, Loihi",
        "samples": count,
        "nanojoules": {p: sum(s["energy"][p] for s in samples) * 1e9 / count for p in parts},
        "microseconds": sum(s["seconds"] for s in samples) * 1e6 / count,
        **{name: sum(s[name] for s in samples) / count for name in COUNTS},
        "compared": compared,
        "mismatches": mismatches,
    }
