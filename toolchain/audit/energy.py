"""Operation counts of a run, and an energy estimate from a table of costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from toolchain.audit.activity import BatchCounts
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.program.synops import dense_operations, fan_out


@dataclass(frozen=True)
class Cost:
    """Energy of one operation in pJ, and the source of the number."""

    picojoules: float
    source: str


@dataclass
class Counted:
    """Numbers of operations by sending population, summed over samples and steps.

    Attributes
    ----------
    events:
        Number of spikes sent, whatever their magnitude.
    synops:
        Number of weights added because of spikes, exact at the borders; a graded spike counts once.
    magnitude:
        Like `synops`, but a graded spike of magnitude k counts k times.
    """

    samples: int = 0
    events: Counter[str] = field(default_factory=Counter)
    synops: Counter[str] = field(default_factory=Counter)
    magnitude: Counter[str] = field(default_factory=Counter)

    def include(self, other: Counted) -> None:
        """Add the operations of other samples."""
        self.samples += other.samples
        self.events.update(other.events)
        self.synops.update(other.synops)
        self.magnitude.update(other.magnitude)


@dataclass
class Operations:
    """The operations of a program, counted batch by batch."""

    program: IntProgram
    counted: Counted = field(default_factory=Counted)

    @cached_property
    def fans(self) -> dict[str, np.ndarray]:
        """Fan-out of every neuron, by population."""
        return fan_out(self.program)

    def add(self, inputs: np.ndarray, found: BatchCounts) -> None:
        """Add a batch of graded inputs, int (n, *sample_shape), and its activity."""
        fans = self.fans
        self.counted.samples += len(inputs)
        events = self.program.input_counts(inputs != 0)
        self._count(INPUT, events, self._magnitudes(inputs), fans)
        for name, events in found.events.items():
            self._count(name, events, found.magnitude[name], fans)

    def _magnitudes(self, inputs: np.ndarray) -> np.ndarray:
        """Magnitudes of graded inputs, summed over the wake steps, int64 (n, ...)."""
        positive, negative = np.maximum(inputs, 0), np.minimum(inputs, 0)
        return self.program.input_counts(positive) - self.program.input_counts(negative)

    def _count(
        self, name: str, events: np.ndarray, size: np.ndarray, fans: dict[str, np.ndarray]
    ) -> None:
        for into, values in (
            (self.counted.events, events),
            (self.counted.synops, events * fans[name]),
            (self.counted.magnitude, size * fans[name]),
        ):
            into[name] += int(values.sum(dtype=np.int64))

    def describe(self, costs: Mapping[str, Cost]) -> dict[str, Any]:
        """Counts per sample as JSON; `costs` has synop, neuron_update and mac (float network)."""
        counted, steps = self.counted, self.program.schedule.num_steps
        n = max(counted.samples, 1)
        updates = steps * sum(prod(p.shape) for p in self.program.populations)
        macs = dense_operations(self.program)
        layers = [
            {
                "name": name,
                "events": counted.events[name] / n,
                "synops": counted.synops[name] / n,
                "synops_by_magnitude": counted.magnitude[name] / n,
            }
            for name in counted.events
        ]
        synops = sum(counted.synops.values()) / n
        found = {"synop": synops, "neuron_update": float(updates), "mac": float(macs)}
        return {
            "layers": layers,
            "synops": synops,
            "synops_by_magnitude": sum(counted.magnitude.values()) / n,
            "neuron_updates": updates,
            "ann_macs": macs,
            "estimate": {
                "note": "operations times costs of a table; nothing was measured",
                "nanojoules": {k: found[k] * cost.picojoules / 1e3 for k, cost in costs.items()},
                "costs": {
                    k: {"picojoules": c.picojoules, "source": c.source} for k, c in costs.items()
                },
            },
        }
