"""Runs of integer programs as Lava processes on the CPU simulator.

`run_on_lava` starts a fresh interpreter for each run. Importing this package loads neither lava nor
other modules early, since the processes around a run import it too.
"""

from typing import TYPE_CHECKING, Any

from exports.lava.models import STOCK, LavaModels

if TYPE_CHECKING:
    from exports.lava.runner import run_on_lava

__all__ = ["STOCK", "LavaModels", "run_on_lava"]


def __getattr__(name: str) -> Any:
    if name == "run_on_lava":
        from exports.lava.runner import run_on_lava

        return run_on_lava
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
