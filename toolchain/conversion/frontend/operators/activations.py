"""Quantized activations: the project's own, adapted ones, and functional forms."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from toolchain.conversion.float_values import RELU, UNBOUNDED
from toolchain.conversion.frontend.activation_spec import SIGNED_QCFS, ActivationSpec
from toolchain.conversion.frontend.adapters import find_adapter, is_activation, registered
from toolchain.conversion.frontend.operators.values import Values, bind_arguments, called_module
from toolchain.conversion.frontend.operators.weighted import conv_module, linear_module
from toolchain.conversion.quantization.percentile import SHIFT
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Activation, FloatNode
from toolchain.user_code import user_code


def _activation(node: fx.Node, values: Values, value: Any, spec: ActivationSpec) -> FloatNode:
    source = values.source(node, value)
    result = Activation(
        values.new_name(node),
        (values.names[source],),
        spec.threshold_array(),
        spec.levels,
        spec.shift,
        spec.kind,
    )
    return values.made(node, result, source)


def adapted_activation(node: fx.Node, values: Values) -> FloatNode:
    """An activation module, described by its adapter, or a layer that quantizes its weights."""
    module = called_module(node, values)
    adapter = find_adapter(module)
    if adapter is None:
        raise TypeError(type(module))
    with user_code("the adapter fails", values.path(node)):
        try:
            spec = adapter(module)
        except UnsupportedModuleError as error:
            raise UnsupportedModuleError(
                error.message,
                node=values.path(node),
                found=error.found,
                allowed=error.allowed,
                remedy=error.remedy,
            ) from error
    if isinstance(spec, nn.Conv2d):
        return conv_module(node, values, spec)
    if isinstance(spec, nn.Linear):
        return linear_module(node, values, spec)
    if not isinstance(spec, ActivationSpec):
        raise UnsupportedModuleError(
            "an adapter must return an ActivationSpec",
            node=values.path(node),
            found=type(spec).__name__,
        )
    source = values.source(node, node.args[0])
    if spec.kind == SIGNED_QCFS and source not in values.rectified:
        raise UnsupportedModuleError(
            f"{type(module).__name__} also encodes negative values, which IF neurons cannot send",
            node=values.path(node),
            allowed="directly behind a ReLU",
        )
    return _activation(node, values, source, spec)


def relu(node: fx.Node, values: Values) -> FloatNode | None:
    """A ReLU before a quantized activation, which is redundant, since that starts at 0.

    Any other ReLU needs a threshold from calibration data, and is an error without calibration.
    """
    source = values.source(node, node.args[0] if node.args else node.kwargs["input"])
    if all(_is_adapted(user, values) for user in node.users):
        values.same(node, source)
        values.rectified.add(node)
        return None
    if not values.plain_relu:
        raise UnsupportedModuleError(
            "a plain ReLU has no threshold, so no spiking counterpart",
            node=values.path(node),
            allowed=f"quantized activations: {', '.join(registered())}",
            remedy="train with spikeport.QCFS, NQ or CQReLU in its place, take its "
            "threshold from calibration data (--relu-percentile 99.9 --calibrate DATA), or give "
            "your own activation an adapter (--adapter FILE.py)",
        )
    values.rectified.add(node)
    return _activation(node, values, source, ActivationSpec(UNBOUNDED, 1, SHIFT, RELU))


def _is_adapted(node: fx.Node, values: Values) -> bool:
    """Whether `node` calls an activation module that has an adapter."""
    if node.op != "call_module":
        return False
    return is_activation(values.model.get_submodule(str(node.target)))


def qcfs_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle `toolchain.learning.activations.qcfs`."""
    a = bind_arguments(node, values, ("z", "threshold", "levels"), {})
    return _activation(
        node, values, a["z"], ActivationSpec(a["threshold"], a["levels"], 0.5, "qcfs")
    )


def cqrelu_function(node: fx.Node, values: Values) -> FloatNode:
    """Handle `toolchain.learning.activations.cqrelu`."""
    a = bind_arguments(node, values, ("x", "levels"), {})
    return _activation(node, values, a["x"], ActivationSpec(1.0, a["levels"], 0.0, "cqrelu"))
