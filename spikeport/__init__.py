"""Takes trained quantized PyTorch networks onto neuromorphic hardware, bit by bit.

    import spikeport

    conversion = spikeport.convert(model, calibrate=train_loader)
    spikeport.save(conversion, "net.net")
    reference = spikeport.run("net.net", test_set)
    lava = spikeport.run("net.net", test_set, backend="lava", models="fast")
    assert spikeport.compare(reference, lava).equal

Importing this package loads neither torch nor lava: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_neighbours() -> None:
    """Raise ImportError if a user's file hides a package that is installed beside this one."""
    place = Path(__file__).resolve().parents[1]
    for name in ("toolchain", "hw_models", "exports"):
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None or place not in found.parents:
            raise ImportError(
                f"spikeport has a package `{name}`, and `import {name}` finds "
                f"{found or 'a folder without __init__.py, or nothing'} instead: rename yours, or "
                "start Python in another folder"
            )


_check_neighbours()

from toolchain import __version__  # noqa: E402 - after the look at what `toolchain` is

if TYPE_CHECKING:
    from exports.network import Network
    from exports.netx.lint import Findings
    from exports.netx.lint import lint_file as lint
    from spikeport import detection
    from spikeport.auditing import Audit, audit
    from spikeport.backends import Backend, Lava, Reference
    from spikeport.checking import Check, check
    from spikeport.conversion import convert
    from spikeport.evaluating import evaluate, evaluate_detector
    from spikeport.exporting import export
    from spikeport.files import load, save
    from spikeport.quantizing import calibrate_noise, quantize
    from spikeport.running import run
    from spikeport.samples import open_samples
    from spikeport.showing import show
    from spikeport.sweeping import Sweep, sweep
    from spikeport.verifying import Verification, verify
    from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter
    from toolchain.conversion.pipeline import Conversion
    from toolchain.errors import SpikeportError
    from toolchain.learning.activations import NQ, QCFS, CQReLU
    from toolchain.learning.evaluation.results import Evaluation
    from toolchain.learning.training.config import TrainConfig
    from toolchain.learning.training.own_errors import own_errors
    from toolchain.learning.training.train_classifier import train
    from toolchain.program.int_program import IntProgram
    from toolchain.recording import Comparison, Recording, compare

__all__ = [
    "NQ",
    "QCFS",
    "ActivationSpec",
    "Audit",
    "Backend",
    "CQReLU",
    "Check",
    "Comparison",
    "Conversion",
    "Evaluation",
    "Findings",
    "IntProgram",
    "Lava",
    "Network",
    "Recording",
    "Reference",
    "SpikeportError",
    "Sweep",
    "TrainConfig",
    "Verification",
    "__version__",
    "activation_adapter",
    "audit",
    "calibrate_noise",
    "check",
    "compare",
    "convert",
    "detection",
    "evaluate",
    "evaluate_detector",
    "export",
    "lint",
    "load",
    "open_samples",
    "own_errors",
    "quantize",
    "run",
    "save",
    "show",
    "sweep",
    "train",
    "verify",
]

_HOMES = {
    "ActivationSpec": "toolchain.conversion.frontend.adapters",
    "Audit": "spikeport.auditing",
    "Backend": "spikeport.backends",
    "CQReLU": "toolchain.learning.activations",
    "Check": "spikeport.checking",
    "Comparison": "toolchain.recording",
    "Conversion": "toolchain.conversion.pipeline",
    "Findings": "exports.netx.lint",
    "Evaluation": "toolchain.learning.evaluation.results",
    "IntProgram": "toolchain.program.int_program",
    "Lava": "spikeport.backends",
    "NQ": "toolchain.learning.activations",
    "Network": "exports.network",
    "QCFS": "toolchain.learning.activations",
    "Recording": "toolchain.recording",
    "Reference": "spikeport.backends",
    "SpikeportError": "toolchain.errors",
    "Sweep": "spikeport.sweeping",
    "TrainConfig": "toolchain.learning.training.config",
    "Verification": "spikeport.verifying",
    "activation_adapter": "toolchain.conversion.frontend.adapters",
    "audit": "spikeport.auditing",
    "calibrate_noise": "spikeport.quantizing",
    "check": "spikeport.checking",
    "compare": "toolchain.recording",
    "convert": "spikeport.conversion",
    "evaluate": "spikeport.evaluating",
    "evaluate_detector": "spikeport.evaluating",
    "export": "spikeport.exporting",
    "lint": "exports.netx.lint:lint_file",
    "load": "spikeport.files",
    "open_samples": "spikeport.samples",
    "own_errors": "toolchain.learning.training.own_errors",
    "quantize": "spikeport.quantizing",
    "run": "spikeport.running",
    "save": "spikeport.files",
    "show": "spikeport.showing",
    "sweep": "spikeport.sweeping",
    "train": "toolchain.learning.training.train_classifier",
    "verify": "spikeport.verifying",
}
"""Module of each public name; after a colon, the name it has there."""


def __getattr__(name: str) -> Any:
    if name == "detection":
        return import_module("spikeport.detection")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Network":
        from hw_models.lava_compat import prepare

        prepare()
    module, _, there = _HOMES[name].partition(":")
    value = getattr(import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
