"""What operations cost, for the commands that estimate energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.audit.energy import Cost


def operation_costs() -> dict[str, Cost]:
    """The table of `hw_models.energy`, as the audit takes it."""
    from hw_models.energy import load_costs
    from toolchain.audit.energy import Cost

    return {k: Cost(c.picojoules, c.source) for k, c in load_costs().items()}
