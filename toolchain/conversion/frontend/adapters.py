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

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from toolchain.conversion.frontend.activation_spec import ActivationSpec
from toolchain.conversion.frontend.known_activations import ANY_CLASS, KNOWN
from toolchain.conversion.frontend.known_layers import KNOWN_LAYERS, plain_layer
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import QuantizedActivation
from toolchain.user_code import load_source

__all__ = [
    "ActivationSpec",
    "activation_adapter",
    "find_adapter",
    "is_activation",
    "load_adapter_file",
    "registered",
]
Adapter = Callable[[nn.Module], ActivationSpec]


@dataclass(frozen=True)
class _Entry:
    """A kind of module; its adapter gives an activation's spec, or a plain layer."""

    class_name: str
    attributes: tuple[str, ...]
    adapter: Callable[[Any], Any]


_REGISTRY = [
    *(_Entry(name, attributes, plain_layer) for name, attributes in KNOWN_LAYERS),
    *(_Entry(*known) for known in KNOWN),
]


def activation_adapter(
    class_name: str, attributes: tuple[str, ...] = ()
) -> Callable[[Adapter], Adapter]:
    """Register an adapter for modules with this class name and these attributes."""

    def register(adapter: Adapter) -> Adapter:
        _REGISTRY.append(_Entry(class_name, attributes, adapter))
        return adapter

    return register


def find_adapter(module: nn.Module) -> Callable[[Any], Any] | None:
    """The adapter of `module`, the last registered first; None if there is none."""
    if isinstance(module, QuantizedActivation):
        return _own
    for entry in reversed(_REGISTRY):
        named = entry.class_name in (ANY_CLASS, type_before_parametrizations(module).__name__)
        if named and all(hasattr(module, a) for a in entry.attributes):
            return entry.adapter
    return None


def is_activation(module: nn.Module) -> bool:
    """Whether `module` has an adapter as an activation."""
    return find_adapter(module) not in (None, plain_layer)


def registered() -> list[str]:
    """Class names of activations with an adapter, for error messages."""
    adapted = {
        f"modules with {', '.join(e.attributes)}" if e.class_name == ANY_CLASS else e.class_name
        for e in _REGISTRY
        if e.adapter is not plain_layer
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
