"""The integer program: populations, synapses, neurons and a schedule, in integers only.

Every backend runs this and nothing else. Contract (t = 1..T is a population's local time):
on every wake step the input layer sends its graded spikes and every population adds its bias;
asleep it sends nothing and adds none. Currents of several synapses add up. State is reset
before local step 1 of each sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolchain.canonical import canonical_json, content_hash, frozen_array
from toolchain.errors import ProgramError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.neurons import Neuron, Readout
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.synapse import Synapse

INPUT = "input"
"""Name of the input layer."""


@dataclass(frozen=True)
class Schedule:
    """Wake steps with input and biases on, then sleep steps with both off."""

    wake_steps: int
    sleep_steps: int = 0

    def __post_init__(self) -> None:
        if self.wake_steps < 1 or self.sleep_steps < 0:
            raise ProgramError(
                "a schedule needs wake_steps >= 1 and sleep_steps >= 0",
                found=f"{self.wake_steps}, {self.sleep_steps}",
            )

    @property
    def num_steps(self) -> int:
        """Local steps a sample takes."""
        return self.wake_steps + self.sleep_steps


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one layer with all that feeds them.

    Attributes
    ----------
    name:
        Qualified path of the module it came from.
    shape:
        (C, H, W) or (F,); channels come first.
    synapses:
        One or more; their currents add.
    bias:
        int32, (C,), added on wake steps.
    """

    name: str
    shape: tuple[int, ...]
    synapses: tuple[Synapse, ...]
    bias: np.ndarray
    neuron: Neuron

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", frozen_array(self.bias, np.int32))

    def per_channel(self, values: np.ndarray) -> np.ndarray:
        """`values`, (C,), reshaped to broadcast against (N, C, H, W) or (N, F)."""
        return values.reshape((-1, *([1] * (len(self.shape) - 1))))


@dataclass(frozen=True, eq=False)
class IntProgram:
    """A whole integer network; `check()` runs on construction.

    Attributes
    ----------
    name:
        What the user calls it.
    input:
        Quantizer that makes the graded input spikes; the input layer is called "input".
    populations:
        In topological order; exactly one of them is a readout.
    weight_bits, state_bits:
        Signed widths the weights and the states are held to.
    watch_ranges:
        True when the range analysis could not prove every state and the user chose to have
        the run watched instead (both backends always watch).
    provenance:
        Where it came from (checkpoint hash, seeds, versions); not part of `hash`.
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
    def readout(self) -> Population:
        """The readout population."""
        return next(p for p in self.populations if isinstance(p.neuron, Readout))

    @property
    def spiking(self) -> tuple[Population, ...]:
        """All populations that send spikes, in topological order."""
        return tuple(p for p in self.populations if not isinstance(p.neuron, Readout))

    def source_shape(self, name: str) -> tuple[int, ...]:
        """Shape of the population or input layer called `name`."""
        return self.input.shape if name == INPUT else self.population(name).shape

    def spike_range(self, name: str) -> IntRange:
        """Values the spikes of the population or input layer `name` may take."""
        if name == INPUT:
            return self.input.range
        neuron = self.population(name).neuron
        if isinstance(neuron, Readout):
            raise ProgramError("a readout sends no spikes", node=name)
        return neuron.spike_range

    @property
    def state_range(self) -> IntRange:
        """What a membrane potential or summed current may be."""
        return IntRange.signed(self.state_bits)

    def depths(self) -> dict[str, int]:
        """Latency of each layer in steps behind the input (its depth), the input at 0."""
        depths = {INPUT: 0}
        for population in self.populations:
            depths[population.name] = 1 + max(depths[s.source] for s in population.synapses)
        return depths

    def check_inputs(self, inputs: np.ndarray) -> None:
        """Check graded input spikes, (N, ...), before a run.

        Raises
        ------
        ProgramError
            If the shape is not that of at least one sample.
        ValueRangeError
            If a value is out of the input's range, or not an integer.
        """
        if inputs.shape[1:] != self.input.shape or len(inputs) == 0:
            raise ProgramError(
                "inputs do not fit the program",
                node=INPUT,
                found=inputs.shape,
                allowed=("N", *self.input.shape),
            )
        self.input.range.check(INPUT, inputs)

    def check(self) -> None:
        """Well-formedness: names, order, shapes, weight widths.

        Raises
        ------
        ProgramError, ValueRangeError
            Naming the population and what is wrong with it.
        """
        if not self.populations:
            raise ProgramError("a program needs at least one population", node=self.name)
        weights = IntRange.signed(self.weight_bits)
        known: dict[str, tuple[int, ...]] = {INPUT: self.input.shape}
        senders = {INPUT}
        for population in self.populations:
            name = population.name
            if name in known or not name or "/" in name:
                raise ProgramError("a name must be new, not empty and without '/'", node=name)
            if not population.synapses:
                raise ProgramError("a population needs a synapse", node=name)
            for synapse in population.synapses:
                if synapse.source not in senders:
                    raise ProgramError(
                        "a synapse must come from an earlier spiking layer",
                        node=name,
                        found=synapse.source,
                        allowed=", ".join(sorted(senders)),
                    )
                shape = synapse.output_shape(known[synapse.source])
                if shape != population.shape:
                    raise ProgramError(
                        "a synapse does not fit its population",
                        node=name,
                        found=shape,
                        allowed=population.shape,
                    )
                weights.check(f"{name} weight", synapse.weight)
            self._check_channels(population)
            known[name] = population.shape
            if not isinstance(population.neuron, Readout):
                senders.add(name)
        readouts = [p.name for p in self.populations if isinstance(p.neuron, Readout)]
        if len(readouts) != 1:
            raise ProgramError(
                "a program needs exactly one readout", node=self.name, found=readouts
            )

    def _check_channels(self, population: Population) -> None:
        channels = (population.shape[0],)
        if population.bias.shape != channels:
            raise ProgramError(
                "bias needs one value a channel",
                node=population.name,
                found=population.bias.shape,
                allowed=channels,
            )
        neuron = population.neuron
        if isinstance(neuron, Readout):
            if len(population.shape) != 1:
                raise ProgramError("a readout is a vector", node=population.name)
            return
        if neuron.threshold.shape != channels:
            raise ProgramError(
                "threshold needs one value a channel",
                node=population.name,
                found=neuron.threshold.shape,
                allowed=channels,
            )
        state = self.state_range
        for what, values in (
            ("threshold", neuron.threshold),
            ("initial potential", neuron.initial_potential),
            ("bias", population.bias),
        ):
            try:
                state.check(f"{population.name} {what}", values)
            except ValueRangeError as error:
                raise ProgramError(
                    f"{what} leaves the state range",
                    node=population.name,
                    found=error.found,
                    allowed=str(state),
                ) from error

    def structure(self) -> dict[str, Any]:
        """Everything but the arrays and the provenance, as JSON."""
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
                    "scale": p.neuron.scale if isinstance(p.neuron, Readout) else None,
                    "synapses": [s.describe() for s in p.synapses],
                }
                for p in self.populations
            ],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Every integer array by a unique name."""
        arrays: dict[str, np.ndarray] = {}
        for p in self.populations:
            for index, synapse in enumerate(p.synapses):
                arrays[f"{p.name}/weight{index}"] = synapse.weight
            arrays[f"{p.name}/bias"] = p.bias
            if not isinstance(p.neuron, Readout):
                arrays[f"{p.name}/threshold"] = p.neuron.threshold
                arrays[f"{p.name}/initial_potential"] = p.neuron.initial_potential
        return arrays

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides the bits of a run (name and provenance left out)."""
        structure = {k: v for k, v in self.structure().items() if k != "name"}
        return content_hash(structure, self.arrays())

    def provenance_json(self) -> str:
        """The provenance as canonical JSON."""
        return canonical_json(dict(self.provenance))
