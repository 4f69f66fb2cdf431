"""Spikes and membrane potentials of a few neurons over one sample, for display."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.engine.simulate import quicker_way, simulate
from toolchain.program.int_program import IntProgram
from toolchain.recording import Mode

NEURONS = 24
"""Most neurons per layer whose spikes are shown: evenly spaced among those that fire."""
TRACES = 3
"""Most of these neurons whose membrane potential is shown: the most active ones."""


@dataclass(frozen=True)
class LayerRaster:
    """One layer over all steps.

    Attributes
    ----------
    neurons:
        Index of each neuron in its flattened layer: int64 (n,).
    spikes:
        int8 (T, n).
    traced, potential:
        Some of these indices, (m,), and their potentials after each step in thresholds, float (T,
        m).
    """

    name: str
    neurons: np.ndarray
    spikes: np.ndarray
    traced: np.ndarray
    potential: np.ndarray


@dataclass(frozen=True)
class Raster:
    """Rasters of all spiking layers with thresholds."""

    layers: tuple[LayerRaster, ...]

    def describe(self) -> list[dict[str, Any]]:
        """One JSON object per layer: spikes and potentials by neuron (rows) and step (columns)."""
        return [
            {
                "name": layer.name,
                "neurons": layer.neurons.tolist(),
                "spikes": layer.spikes.T.tolist(),
                "traced": layer.traced.tolist(),
                "potential": np.round(layer.potential.T, 4).tolist(),
            }
            for layer in self.layers
        ]


def record_raster(program: IntProgram, inputs: np.ndarray) -> Raster:
    """The raster of one sample, graded spikes int (1, ...)."""
    recording = simulate(program, inputs, mode=Mode.FULL, way=quicker_way(program, len(inputs)))
    layers = []
    for population in program.spiking:
        threshold = getattr(population.neuron, "threshold", None)
        if threshold is None:
            continue
        spikes = recording.spikes[population.name][:, 0].reshape(program.schedule.num_steps, -1)
        by_neuron = population.per_channel(threshold)
        thetas = np.broadcast_to(by_neuron, (1, *population.shape)).reshape(-1)
        potential = recording.membrane[population.name][:, 0].reshape(len(spikes), -1)
        activity = np.abs(spikes, dtype=np.int16).sum(0)
        (firing,) = activity.nonzero()
        shown = firing if len(firing) else np.arange(spikes.shape[1])
        shown = shown[np.linspace(0, len(shown) - 1, min(NEURONS, len(shown))).astype(int)]
        traced = shown[np.argsort(-activity[shown], kind="stable")[:TRACES]]
        values = potential[:, traced] / thetas[traced]
        layers.append(LayerRaster(population.name, shown, spikes[:, shown], traced, values))
    return Raster(tuple(layers))
