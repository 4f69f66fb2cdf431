"""Run configuration that selects one of the two models of a block.

Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2SimCfg

from toolchain.errors import TargetError

FAST, FIXED_PT = "fast", "fixed_pt"
TAGS = (FAST, FIXED_PT)
STOCK = "stock"
"""Tag of a block's model that is built from stock synapses."""


OWN = "hw_models.processes."
"""Package of the processes that have all their models in their own module."""


class SimCfg(Loihi2SimCfg):
    """Lava's `Loihi2SimCfg` with a choice for blocks; other processes run in fixed point.

    Parameters
    ----------
    select_tag:
        "fast": a block is one process. "fixed_pt": a block is expanded into stock synapses.

    Raises
    ------
    TargetError
        For another tag.
    """

    def __init__(self, select_tag: str = FAST, **options: Any) -> None:
        if select_tag not in TAGS:
            raise TargetError("no such tag", found=select_tag, allowed=", ".join(TAGS))
        super().__init__(select_tag=FIXED_PT, **options)
        self._block_tag = select_tag
        self.exception_proc_model_map = _Choices(self)

    def select(self, process: Any, proc_models: list[Any]) -> Any:
        """The model of a process; see `Loihi2SimCfg`."""
        if process.__class__ not in self.exception_proc_model_map:
            stock, fast = (
                [model for model in proc_models if tag in model.tags] for tag in (STOCK, FAST)
            )
            if stock and fast:
                if self._block_tag == FIXED_PT:
                    return stock[0]
                load_kernels()
                return fast[0]
        return super().select(process, proc_models)


@functools.cache
def load_kernels() -> None:
    """Load the loops of fast models before Lava forks, once for all of its processes."""
    from toolchain.compiled import load_numba

    importlib.import_module("hw_models.fast.stages")
    load_numba()


class _Choices(dict[Any, Any]):
    """Models by class of process, as users choose them, and the models of this package's processes.

    For a process that is not in this map, Lava executes every file of the process's folder anew, as
    often as the folder has files: most of the time before a run starts.
    """

    def __init__(self, config: SimCfg) -> None:
        super().__init__(config.exception_proc_model_map)
        self._config = config

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (
            isinstance(key, AbstractProcess) and type(key).__module__.startswith(OWN)
        )

    def __missing__(self, process: Any) -> Any:
        module = sys.modules[type(process).__module__]
        models = ProcGroupDiGraphs._find_proc_models_in_module(process, module)
        return self._config.select(process, models)
