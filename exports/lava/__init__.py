"""Runs integer programs as Lava processes on the CPU simulator.

`run_on_lava` starts a fresh interpreter for each run; importing this package loads no lava.
"""

from exports.lava.models import STOCK, LavaModels
from exports.lava.runner import run_on_lava

__all__ = ["STOCK", "LavaModels", "run_on_lava"]
