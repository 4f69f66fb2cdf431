"""What operations cost, from public tables; each number with its source."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class OperationCost:
    """Energy of one operation in pJ, and where the number is from."""

    picojoules: float
    source: str


def load_costs() -> dict[str, OperationCost]:
    """Of a synaptic operation, a neuron update, and a multiply-add of the float network."""
    table = tomllib.loads((resources.files("hw_models") / "energy.toml").read_text())
    return {
        name: OperationCost(float(entry["picojoules"]), str(entry["source"]))
        for name, entry in table.items()
    }
