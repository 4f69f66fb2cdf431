"""The points of a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from toolchain.canonical import canonical_json
from toolchain.program.int_program import Schedule

SLEEP_FACTOR = 4
"""Sleep steps per wake step of CIF networks, as by default in `convert`."""


@dataclass(frozen=True)
class Point:
    """One conversion.

    Attributes
    ----------
    run:
        Checkpoint folder, or another name of a network, with an absolute path.
    levels:
        Its trained quantization levels, for the table; 0 if it has none.
    steps:
        Time steps of IF, wake steps of CIF.
    max_spike:
        Largest spike of IF neurons: K spikes of a step are one message.
    """

    run: str
    levels: int
    neuron: str
    steps: int
    weight_bits: int
    max_spike: int = 1

    @property
    def schedule(self) -> Schedule:
        """The wake steps, and for CIF the sleep steps."""
        return Schedule(self.steps, SLEEP_FACTOR * self.steps if self.neuron == "cif" else 0)

    def key(self, network_sha256: str, data_sha256: str, target: str) -> str:
        """Key of this point's result: equal networks and data have equal keys in any folder."""
        fields: dict[str, Any] = asdict(self)
        del fields["run"]
        if self.max_spike == 1:  # as before there were graded spikes
            del fields["max_spike"]
        fields |= {"checkpoint": network_sha256, "data": data_sha256, "target": target}
        return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def make_grid(
    runs: Sequence[tuple[str, int]],
    neurons: Sequence[str],
    steps: Sequence[int],
    weight_bits: Sequence[int],
    max_spikes: Sequence[int] = (1,),
) -> list[Point]:
    """All combinations, the fewest steps first; `runs` are names of networks and their levels.

    CIF neurons have no graded spikes, so that they are in the grid once.
    """
    points = [
        Point(run, levels, neuron, t, bits, most)
        for (run, levels), neuron, t, bits in product(runs, neurons, steps, weight_bits)
        for most in (max_spikes if neuron == "if" else (1,))
    ]
    return sorted(points, key=lambda p: (p.steps, p.weight_bits, p.max_spike))
