"""The integer program: populations, synapses, neurons and a schedule, all in integers.

Every backend runs this program. Contract (t = 1..T is a population's local time):
on every wake step the input layer sends its graded spikes (the same on each, or those of this step
if the input is a sequence) and every population adds its bias.
On sleep steps, nothing is sent and no bias is added. Currents of several synapses add. State is
reset before local step 1 of each sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from toolchain.canonical import canonical_json, content_hash
from toolchain.documents import as_error, typed
from toolchain.errors import ProgramError
from toolchain.int_range import IntRange
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.neurons import Readout
from toolchain.program.population import INPUT, Population
from toolchain.program.synapse import Synapse
from toolchain.program.well_formed import check_populations

__all__ = ["INPUT", "IntProgram", "Population", "Schedule"]

_Kind = TypeVar("_Kind")

MAX_STATE_BITS = 32
"""Largest width of a state: recordings store membrane potentials as int32."""


MOST_STEPS = 1 << 16
"""Largest number of wake steps, and of sleep steps.

A rate over T steps has T + 1 values, so more steps would exceed 16 bits; each step costs a pass
over the network.
"""


@dataclass(frozen=True)
class Schedule:
    """Wake steps with input and biases, followed by sleep steps without both."""

    wake_steps: int
    sleep_steps: int = 0

    def __post_init__(self) -> None:
        if self.wake_steps < 1 or self.sleep_steps < 0:
            raise ProgramError(
                "a schedule needs wake_steps >= 1 and sleep_steps >= 0",
                found=f"{self.wake_steps}, {self.sleep_steps}",
            )
        if max(self.wake_steps, self.sleep_steps) > MOST_STEPS:
            raise ProgramError(
                "the schedule has too many steps",
                found=f"{self.wake_steps} wake, {self.sleep_steps} sleep steps",
                allowed=f"up to {MOST_STEPS} of each: a rate of 16 bits",
                remedy="the accuracy hardly changes beyond some 64 steps",
            )

    @property
    def num_steps(self) -> int:
        """Local steps per sample: wake and sleep steps."""
        return self.wake_steps + self.sleep_steps


@dataclass(frozen=True, eq=False)
class IntProgram:
    """A whole integer network; `check()` runs on construction.

    Attributes
    ----------
    name:
        Name given by the user.
    input:
        Quantizer that makes the graded input spikes; the name of the input layer is "input".
    populations:
        Populations in topological order; the last ones, and only they, are the readouts (one or
        more).
    weight_bits, state_bits:
        Signed widths of the weights and of the states.
    watch_ranges:
        True if the range analysis could not prove every state and the user chose to have the runs
        watched instead (both backends always watch).
    provenance:
        Origin (checkpoint hash, seeds, versions); not part of `hash`.
    """

    name: str
    input: InputQuantizer
    populations: tuple[Population, ...]
    schedule: Schedule
    weight_bits: int = 8
    state_bits: int = 24
    watch_ranges: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    def population(self, name: str) -> Population:
        """The population called `name`; raises KeyError if there is none."""
        for population in self.populations:
            if population.name == name:
                return population
        raise KeyError(name)

    @property
    def readouts(self) -> tuple[Population, ...]:
        """The readouts, in the order of the network's outputs."""
        return tuple(p for p in self.populations if isinstance(p.neuron, Readout))

    @property
    def readout(self) -> Population:
        """The only readout, of shape (K,): the logits of a classifier.

        Raises
        ------
        ProgramError
            If the program has several readouts, or one that is an image.
        """
        readouts = self.readouts
        if len(readouts) > 1 or len(readouts[0].shape) > 1:
            raise ProgramError(
                "this is for classifiers, whose output is one vector of logits",
                node=self.name,
                found=", ".join(f"{p.name} {p.shape}" for p in readouts),
                allowed="one readout of shape (K,)",
                remedy="the outputs of other networks are in a recording, by name",
            )
        return readouts[0]

    @property
    def spiking(self) -> tuple[Population, ...]:
        """All populations that send spikes, in topological order."""
        return tuple(p for p in self.populations if not isinstance(p.neuron, Readout))

    def source_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the population or input layer called `name`."""
        return self.input.shape if name == INPUT else self.population(name).shape

    def spike_range(self, name: str) -> IntRange:
        """Values that the spikes of the population or input layer `name` may have.

        Raises
        ------
        ProgramError
            If the layer sends no spikes.
        """
        if name not in self._spike_ranges:
            raise ProgramError(
                "sends no spikes", node=name, allowed=", ".join(sorted(self._spike_ranges))
            )
        return self._spike_ranges[name]

    @cached_property
    def _spike_ranges(self) -> Mapping[str, IntRange]:
        return check_populations(
            self.name,
            self.input.shape,
            self.input.range,
            self.populations,
            IntRange.signed(self.weight_bits),
            self.state_range,
        )

    @property
    def state_range(self) -> IntRange:
        """Range of a membrane potential or summed current."""
        return IntRange.signed(self.state_bits)

    def depths(self) -> dict[str, int]:
        """Latency of each layer in steps after the input (its depth); the input has 0."""
        depths = {INPUT: 0}
        for population in self.populations:
            depths[population.name] = 1 + max(depths[s.source] for s in population.synapses)
        return depths

    def delay(self, population: Population, synapse: Synapse) -> int:
        """Steps by which the spikes of a synapse wait for the longest branch; 0 without a wait."""
        depths = self.depths()
        return depths[population.name] - depths[synapse.source] - 1

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample's graded spikes: (C, H, W) or (F,), of a sequence (T, ...)."""
        wake = (self.schedule.wake_steps,) if self.input.per_step else ()
        return (*wake, *self.input.shape)

    def check_inputs(self, inputs: np.ndarray) -> None:
        """Check graded input spikes, int (N, *sample_shape), before a run.

        Raises
        ------
        ProgramError
            If the shape is not that of at least one sample.
        ValueRangeError
            If a value is outside the input's range, or not an integer.
        """
        shape = inputs.shape[1:]
        if self.input.per_step and shape[1:] == self.input.shape and shape != self.sample_shape:
            raise ProgramError(
                "a sequence has one tensor for each wake step",
                node=INPUT,
                found=f"{shape[0]} tensors",
                allowed=f"{self.schedule.wake_steps} wake steps",
                remedy=f"convert with steps={shape[0]}, or give sequences of this length",
            )
        if shape != self.sample_shape or len(inputs) == 0:
            raise ProgramError(
                "inputs do not fit the program",
                node=INPUT,
                found=inputs.shape,
                allowed=("N", *self.sample_shape),
            )
        self.input.range.check(INPUT, inputs)

    def awake_inputs(self, inputs: np.ndarray, first: int, steps: int) -> np.ndarray:
        """Graded spikes of some wake steps, as a view (T, n, ...); T is 1 if all are equal.

        Parameters
        ----------
        inputs:
            int (n, *sample_shape).
        first:
            Number of wake steps before them.
        """
        if not self.input.per_step:
            return inputs[None]
        return inputs[:, first : first + steps].swapaxes(0, 1)

    def input_counts(self, inputs: np.ndarray) -> np.ndarray:
        """Graded spikes, int (n, *sample_shape), summed over all wake steps: int64 (n, ...)."""
        if self.input.per_step:
            return inputs.sum(1, dtype=np.int64)
        return inputs.astype(np.int64) * self.schedule.wake_steps

    def check(self) -> None:
        """Check names, order, shapes, widths and kinds, see `well_formed`.

        Raises
        ------
        ProgramError, ValueRangeError
            If the program is not well formed. The error names the population and the fault.
        """
        if not 2 <= self.state_bits <= MAX_STATE_BITS:
            raise ProgramError(
                f"state_bits must be 2 .. {MAX_STATE_BITS}", node=self.name, found=self.state_bits
            )
        # The pass that computes the spike ranges checks everything else.
        _ = self._spike_ranges

    def structure(self) -> dict[str, Any]:
        """All fields except arrays and provenance, as JSON."""
        return {
            "name": self.name,
            "input": self.input.describe(),
            "wake_steps": self.schedule.wake_steps,
            "sleep_steps": self.schedule.sleep_steps,
            "weight_bits": self.weight_bits,
            "state_bits": self.state_bits,
            "watch_ranges": self.watch_ranges,
            "populations": [
                {
                    "name": p.name,
                    "shape": list(p.shape),
                    "neuron": p.neuron.kind,
                    "scale": p.neuron.reals().get("scale"),
                    **p.neuron.integers(),
                    "synapses": [s.describe() for s in p.synapses],
                }
                for p in self.populations
            ],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """All integer arrays by unique names."""
        arrays: dict[str, np.ndarray] = {}
        for p in self.populations:
            for index, synapse in enumerate(p.synapses):
                for what, array in synapse.arrays().items():
                    arrays[f"{p.name}/{what}{index}"] = array
            arrays[f"{p.name}/bias"] = p.bias
            for what, array in p.neuron.arrays().items():
                arrays[f"{p.name}/{what}"] = array
        return arrays

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that decides the bits of a run (name and provenance excluded)."""
        structure = {k: v for k, v in self.structure().items() if k != "name"}
        return content_hash(structure, self.arrays())

    def origin(self, part: str, kind: type[_Kind]) -> _Kind | None:
        """A part of the provenance, as the declared type `kind`; None if it is absent.

        Raises
        ------
        ProgramError
            If the part does not have that type.
        """
        if part not in self.provenance:
            return None
        told = f"{part!r} is damaged in the provenance"
        with as_error(ProgramError, told, self.name, "convert again"):
            return typed(kind, self.provenance[part])

    def provenance_json(self) -> str:
        """The provenance as canonical JSON."""
        return canonical_json(dict(self.provenance))
