"""Run configuration that selects one of the two models of a block.

Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from typing import Any

from lava.magma.core.run_configs import Loihi2SimCfg

from toolchain.errors import TargetError

FAST, FIXED_PT = "fast", "fixed_pt"
TAGS = (FAST, FIXED_PT)
STOCK = "stock"
"""Tag of a block's model that is built from stock synapses."""


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

    def select(self, process: Any, proc_models: list[Any]) -> Any:
        """The model of a process; see `Loihi2SimCfg`."""
        if process.__class__ not in self.exception_proc_model_map:
            stock, fast = (
                [model for model in proc_models if tag in model.tags] for tag in (STOCK, FAST)
            )
            if stock and fast:
                return (stock if self._block_tag == FIXED_PT else fast)[0]
        return super().select(process, proc_models)
