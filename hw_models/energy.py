"""Energy costs of operations, from public tables with their sources."""

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
    """Energy of one operation in pJ, and the source of the number."""

    picojoules: float
    source: str


def load_costs() -> dict[str, OperationCost]:
    """Costs of a synaptic operation, a neuron update, and a multiply-add of the float network."""
    table = tomllib.loads((resources.files("hw_models") / "energy.toml").read_text())
    return {
        name: OperationCost(float(entry["picojoules"]), str(entry["source"]))
        for name, entry in table.items()
    }
