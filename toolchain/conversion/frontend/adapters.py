"""Adapters of activations in users' networks, registered by class name and attributes.

An adapter describes a module's activation as `lam * clip(floor(L * z / lam + shift), 0, L)
/ L`. Add one with

    from spikeport import ActivationSpec, activation_adapter

    @activation_adapter("MyClip", attributes=("limit", "bits"))
    def my_clip(module):
        return ActivationSpec(threshold=module.limit, levels=2 ** module.bits - 1, shift=0.5)

in a file passed as `--adapter FILE.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import QuantizedActivation
from toolchain.user_code import load_source


@dataclass(frozen=True)
class ActivationSpec:
    """Parameters of a quantized activation.

    Attributes
    ----------
    threshold:
        `lam`: one number, or one per channel.
    levels:
        Quantization levels L (or Q).
    shift:
        1/2 (QCFS, NQ) or 0 (CQReLU); the initial potential in units of the threshold.
    kind:
        Name of the activation in reports.
    """

    threshold: Any
    levels: int
    shift: float
    kind: str = "adapted"

    def threshold_array(self) -> np.ndarray:
        """`threshold` as float64, (1,) or (C,)."""
        value = self.threshold
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().double().numpy()
        return np.asarray(value, np.float64).reshape(-1)


Adapter = Callable[[nn.Module], ActivationSpec]


@dataclass(frozen=True)
class _Entry:
    class_name: str
    attributes: tuple[str, ...]
    adapter: Adapter


_REGISTRY: list[_Entry] = []


ANY_CLASS = "*"
"""Class name of an adapter that matches by attributes alone."""
SIGNED_QCFS = "signed-qcfs"
"""Kind of an activation that is exact for inputs >= 0 only."""


def activation_adapter(
    class_name: str, attributes: tuple[str, ...] = ()
) -> Callable[[Adapter], Adapter]:
    """Register an adapter for modules with this class name and these attributes."""

    def register(adapter: Adapter) -> Adapter:
        _REGISTRY.append(_Entry(class_name, attributes, adapter))
        return adapter

    return register


def find_adapter(module: nn.Module) -> Adapter | None:
    """The adapter of `module`, the last registered first; None if there is none."""
    if isinstance(module, QuantizedActivation):
        return _own
    for entry in reversed(_REGISTRY):
        named = entry.class_name in (ANY_CLASS, type_before_parametrizations(module).__name__)
        if named and all(hasattr(module, a) for a in entry.attributes):
            return entry.adapter
    return None


def registered() -> list[str]:
    """Class names with an adapter, for error messages."""
    adapted = {
        f"modules with {', '.join(e.attributes)}" if e.class_name == ANY_CLASS else e.class_name
        for e in _REGISTRY
    }
    return sorted({"QCFS", "NQ", "CQReLU", *adapted})


def load_adapter_file(source: Path | str) -> None:
    """Load the user's FILE.py or package.module, whose decorators register adapters.

    Raises
    ------
    UnsupportedModuleError
        If the file is missing, fails, or registers nothing.
    """
    before = len(_REGISTRY)
    load_source(str(source))
    if len(_REGISTRY) == before:
        raise UnsupportedModuleError(
            "the adapter file registers nothing",
            node=str(source),
            remedy="decorate a function with @activation_adapter('ClassName')",
        )


def _own(module: nn.Module) -> ActivationSpec:
    if not isinstance(module, QuantizedActivation):
        raise TypeError(type(module))
    return ActivationSpec(module.threshold, module.levels, module.shift, module.kind)


@activation_adapter("IF", attributes=("thresh", "L", "T"))
def qcfs_reference(module: Any) -> ActivationSpec:
    """The activation of the public QCFS code: trained `thresh`, `L` levels, `T` = 0 in an ANN."""
    return ActivationSpec(module.thresh, int(module.L), 0.5, "qcfs")


@activation_adapter(ANY_CLASS, attributes=("s", "sym", "pos_max", "neg_min"))
def spikingjelly_quantizer(module: Any) -> ActivationSpec:
    """SpikingJelly's quantizers (2.0, `spikezip_qann`), recognised by their attributes.

    `clip(floor(x / s + 1/2), neg_min, pos_max) * s` is QCFS with lam = s * pos_max and
    L = pos_max. Its negative branch has no counterpart in a spiking neuron, so
    a quantizer with neg_min < 0 is accepted only after a ReLU; tracing checks this.
    """
    levels = int(module.pos_max)
    kind = "qcfs" if int(module.neg_min) >= 0 else SIGNED_QCFS
    return ActivationSpec(torch.as_tensor(module.s) * levels, levels, 0.5, kind)
