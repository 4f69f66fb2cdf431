"""Module names of version 0.1, mapped to the modules of today.

User files import some of them: activations in a network's file, `activation_adapter` in a file
for --adapter. New files import `spikeport`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "toolchain.detection.trainer": "toolchain.learning.detection.train_detector",
    "toolchain.training.trainer": "toolchain.learning.training.train_classifier",
    "toolchain.activations": "toolchain.learning.activations",
    "toolchain.data": "toolchain.learning.data",
    "toolchain.detection": "toolchain.learning.detection",
    "toolchain.evaluation": "toolchain.learning.evaluation",
    "toolchain.models": "toolchain.learning.models",
    "toolchain.training": "toolchain.learning.training",
    "toolchain.neurons": "toolchain.program.neurons",
    "toolchain.conversion.adapters": "toolchain.conversion.frontend.adapters",
    "toolchain.conversion.operators": "toolchain.conversion.frontend.operators",
    "toolchain.conversion.trace": "toolchain.conversion.frontend.trace",
    "toolchain.conversion.folding": "toolchain.conversion.passes",
    "toolchain.conversion.float_passes": "toolchain.conversion.passes.fold",
    "toolchain.conversion.layers": "toolchain.conversion.passes.layers",
    "toolchain.conversion.integers": "toolchain.conversion.quantization",
    "toolchain.simulator.engine": "toolchain.engine",
    "toolchain.simulator.settle": "toolchain.engine.settle",
    "toolchain.simulator.simulate": "toolchain.engine.simulate",
}


class _OldNames(MetaPathFinder, Loader):
    """Import hook for old module names; a module is one object under both names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by Python for every module that is not imported yet."""
        ours = fullname.startswith("toolchain.")
        return ModuleSpec(fullname, self) if ours and _new_name(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        """Replace the module that Python made for the old name by the module itself."""
        new = _new_name(module.__name__)
        assert new is not None
        sys.modules[module.__name__] = import_module(new)


def _new_name(name: str) -> str | None:
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


def lead_on() -> None:
    """Install the import hook, first in the search order, so that no file is loaded twice."""
    sys.meta_path.insert(0, _OldNames())
