"""Quantized activations: the project's own, adapted ones, and functional forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn

from toolchain.conversion.frontend.activation_spec import SIGNED_QCFS, ActivationSpec
from toolchain.conversion.frontend.adapters import find_adapter, is_activation, registered
from toolchain.conversion.frontend.operators.affine import is_traced, operands
from toolchain.conversion.frontend.operators.selection import is_permuted
from toolchain.conversion.frontend.operators.values import (
    Traced,
    Values,
    bind_arguments,
    called_module,
    run_on,
)
from toolchain.conversion.frontend.operators.weighted import conv_module, linear_module
from toolchain.conversion.quantization.percentile import SHIFT
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import UNBOUNDED, Activation
from toolchain.user_code import user_code


def _activation(
    node: fx.Node, values: Values, value: Any, spec: ActivationSpec, bound: float | None = None
) -> Traced:
    """Add an activation of `value`; one that only arranges values anew is arranged behind it."""
    threshold, view = spec.threshold_array(), values.tensor(node, value)
    is_arranged = view.index is not None and is_permuted(view.index, view.base)
    if is_arranged and threshold.size == 1:
        source = Traced(view.name, view.base)
    else:
        source = view = values.source(node, value)
    name = values.new_name(node)
    made = values.emit(
        node,
        Activation(name, (source.name,), threshold, spec.levels, spec.shift, spec.kind, bound),
        source,
    )
    if source is not view:
        made = replace(view, name=name)
        values.bind(node, made)
    return made


def adapted_activation(node: fx.Node, values: Values) -> None:
    """An activation module, described by its adapter, or a layer that quantizes its weights."""
    module = called_module(node)
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
        conv_module(node, values, spec)
        return
    if isinstance(spec, nn.Linear):
        linear_module(node, values, spec)
        return
    if not isinstance(spec, ActivationSpec):
        raise UnsupportedModuleError(
            "an adapter must return an ActivationSpec",
            node=values.path(node),
            found=type(spec).__name__,
        )
    if spec.kind == SIGNED_QCFS and not values.tensor(node, node.args[0]).is_rectified:
        raise UnsupportedModuleError(
            f"{type(module).__name__} also encodes negative values, which IF neurons cannot send",
            node=values.path(node),
            allowed="directly behind a ReLU",
        )
    _activation(node, values, node.args[0], spec)


def relu(node: fx.Node, values: Values) -> None:
    """A ReLU; redundant of values that are never negative, and before a quantized activation.

    At the end of the network it is left out. Any other ReLU needs a threshold from calibration
    data, and is an error without calibration.
    """
    _relu(node, values, node.args[0] if node.args else node.kwargs["input"])


def _relu(node: fx.Node, values: Values, value: Any) -> None:
    if values.follows_activation(values.tensor(node, value)):
        values.bind(node, values.tensor(node, value))
        return
    if all(_is_adapted(user) for user in node.users):
        source = values.tensor(node, value)
        values.bind(
            node, Traced(source.name, source.base, source.index, source.path, is_rectified=True)
        )
        return
    if node in values.final:
        leave_out(node, values, value)
        return
    if not values.plain_relu:
        raise UnsupportedModuleError(
            "a plain ReLU has no threshold, so no spiking counterpart",
            node=values.path(node),
            allowed=f"quantized activations: {', '.join(registered())}",
            remedy="train with spikeport.QCFS, NQ or CQReLU in its place, take its "
            "threshold from calibration data (calibrate=DATA), or give "
            "your own activation an adapter (adapters=FILE.py)",
        )
    _clipped(node, values, value, UNBOUNDED)


def _clipped(node: fx.Node, values: Values, value: Any, bound: float) -> None:
    """An activation that clips to [0, bound], whose levels are chosen with the steps."""
    kind = "relu" if bound == UNBOUNDED else f"relu{bound:g}"
    made = _activation(node, values, value, ActivationSpec(bound, 1, SHIFT, kind), bound)
    made.is_rectified = True


def clamp_module(node: fx.Node, values: Values) -> None:
    """Handle nn.ReLU6 and nn.Hardtanh: clipping to [0, max]."""
    m = called_module(node)
    _clamp(node, values, m.min_val, m.max_val)


def relu6_function(node: fx.Node, values: Values) -> None:
    """Handle F.relu6."""
    _clamp(node, values, 0.0, 6.0)


def clamp_function(node: fx.Node, values: Values) -> None:
    """Handle torch.clamp, torch.clip, Tensor.clamp and F.hardtanh with constant bounds."""
    kwargs = {{"min_val": "min", "max_val": "max"}.get(k, k): v for k, v in node.kwargs.items()}
    kwargs.pop("inplace", None)
    is_hardtanh = getattr(node.target, "__name__", "") == "hardtanh"
    defaults = {"min": -1.0, "max": 1.0} if is_hardtanh else {"min": None, "max": None}
    a = bind_arguments(node, values, ("input", "min", "max"), defaults, kwargs)
    _clamp(node, values, a["min"], a["max"])


def clamp_min_function(node: fx.Node, values: Values) -> None:
    """Handle torch.clamp_min and Tensor.clamp_min: with 0, a ReLU."""
    a = bind_arguments(node, values, ("input", "min"), {})
    _clamp(node, values, a["min"], None)


def maximum_function(node: fx.Node, values: Values) -> None:
    """Handle torch.maximum and Tensor.maximum with zeros: a ReLU."""
    given = operands(node, values)
    traced = [v for v in given if is_traced(v, values)]
    constants = [values.resolve(v) for v in given if not is_traced(v, values)]
    if len(traced) != 1 or constants[0].any():
        raise UnsupportedModuleError(
            "a maximum of two tensors has no exact integer counterpart here",
            node=values.path(node),
            allowed="a maximum with 0, which is a ReLU, and max pools",
        )
    _relu(node, values, traced[0])


def threshold_module(node: fx.Node, values: Values) -> None:
    """Handle nn.Threshold: a ReLU if both its numbers are 0."""
    m = called_module(node)
    _threshold(node, values, m.threshold, m.value)


def threshold_function(node: fx.Node, values: Values) -> None:
    """Handle F.threshold: a ReLU if both its numbers are 0."""
    names = ("input", "threshold", "value", "inplace")
    a = bind_arguments(node, values, names, {"inplace": False})
    _threshold(node, values, a["threshold"], a["value"])


def _threshold(node: fx.Node, values: Values, threshold: float, value: float) -> None:
    if threshold or value:
        raise UnsupportedModuleError(
            "a threshold that leaves a step or an offset",
            node=values.path(node),
            found=f"{value} up to {threshold}",
            allowed="0 up to 0, which is a ReLU",
        )
    relu(node, values)


def _clamp(node: fx.Node, values: Values, low: Any, high: Any) -> None:
    value = node.args[0] if node.args else node.kwargs["input"]
    if low != 0 or isinstance(high, Tensor) or (high is not None and high <= 0):
        raise UnsupportedModuleError(
            "clipping to a range that does not begin at 0",
            node=values.path(node),
            found=f"{low} .. {high}",
            allowed="0 .. a positive number, as ReLU6",
        )
    if high is None:
        relu(node, values)
    else:
        _clipped(node, values, value, float(high))


def final(node: fx.Node, values: Values) -> None:
    """Handle functions that keep the order of the outputs, at the end of the network.

    Raises
    ------
    UnsupportedModuleError
        Inside a network.
    """
    if node not in values.final:
        name = str(getattr(node.target, "__name__", node.target))
        if node.op == "call_module":
            name = type(called_module(node)).__name__
        raise UnsupportedModuleError(
            f"{name} inside a network has no exact integer counterpart",
            node=values.path(node),
            allowed="at the end, where it is left out, since it keeps the order of the outputs",
            remedy="softmax between layers (attention) and gates have no counterpart; an "
            "activation can be replaced by spikeport.QCFS, NQ or CQReLU and trained again",
        )
    leave_out(node, values, node.args[0] if node.args else node.kwargs["input"])


def leave_out(node: fx.Node, values: Values, value: Any) -> None:
    """Let the network return `value`: this last function, and views behind it, are left out."""
    values.bind(node, values.tensor(node, value))
    values.left_out[node] = lambda tensor: run_on(node, values, value, tensor)
    values.notes.append(
        f"{values.path(node)}: the last function of the network is left out: outputs are the "
        "values before it"
    )


def _is_adapted(node: fx.Node) -> bool:
    """Whether `node` calls an activation module that has an adapter."""
    return node.op == "call_module" and is_activation(called_module(node))


def qcfs_function(node: fx.Node, values: Values) -> None:
    """Handle `toolchain.learning.activations.qcfs`."""
    a = bind_arguments(node, values, ("z", "threshold", "levels"), {})
    spec = ActivationSpec(a["threshold"], a["levels"], 0.5, "qcfs")
    _activation(node, values, a["z"], spec)


def cqrelu_function(node: fx.Node, values: Values) -> None:
    """Handle `toolchain.learning.activations.cqrelu`."""
    a = bind_arguments(node, values, ("x", "levels", "threshold"), {"threshold": 1.0})
    spec = ActivationSpec(a["threshold"], a["levels"], 0.0, "cqrelu")
    _activation(node, values, a["x"], spec)
