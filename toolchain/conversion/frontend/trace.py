"""Tracing of a torch module to a FloatProgram, with torch.fx.

Every operation is either known (`operators/table.py`) or an error that names its qualified path,
what is supported and what to do; nothing is skipped.
"""

from __future__ import annotations

from operator import iadd
from typing import Any

from torch import fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.conversion.frontend.in_place import resolve_in_place
from toolchain.conversion.frontend.operators import table
from toolchain.conversion.frontend.operators.activations import adapted_activation
from toolchain.conversion.frontend.operators.remedies import remedy
from toolchain.conversion.frontend.operators.values import Handler, Made, Values
from toolchain.conversion.frontend.user_module import (
    check_readable,
    in_evaluation,
    output_list,
    run_hooks,
    unwrapped,
)
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import cqrelu, qcfs
from toolchain.program.float_program import FloatNode, FloatProgram, Input
from toolchain.program.int_program import INPUT
from toolchain.user_code import home_of, told, user_code


class _Proxy(fx.Proxy):
    """Distinguishes `a += b`, which writes into a tensor, from `a + b`; both are named "add"."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", iadd, (self, other), {}, name="add")


class _Tracer(fx.Tracer):
    """Traces into a user's modules, but not into torch's own or known activations."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(qcfs, cqrelu))

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if find_adapter(m) is not None or type_before_parametrizations(m) in table.MODULES:
            return True
        return bool(super().is_leaf_module(m, module_qualified_name))


def trace(
    model: nn.Module, input_shape: tuple[int, ...], *, plain_relu: bool = False
) -> FloatProgram:
    """Trace `model` (in evaluation mode) for samples of `input_shape`, without the batch axis.

    With `plain_relu`, ReLUs become activations without a bound, and `percentile` measures their
    thresholds later; otherwise they are an error.

    Weights are those that hooks and parametrizations compute (weight_norm, prune). Readers of a
    tensor that an in-place operation changed take the result.

    Raises
    ------
    UnsupportedModuleError
        For an operation with no exact counterpart, data-dependent control flow, several inputs,
        outputs that are not tensors, or a module without code or values (see `user_module`).
    ConversionError
        For NaN or infinite weights, and for thresholds that are not positive.
    ProgramError
        If shapes do not fit.
    """
    model = unwrapped(model)
    check_readable(model)
    run_hooks(model, input_shape)
    with in_evaluation(model):
        graph = _graph(model)
    resolve_in_place(graph, model)
    values = Values(model, input_shape, plain_relu=plain_relu)
    nodes: list[FloatNode] = []
    outputs: tuple[str, ...] = ()
    for node in graph.nodes:
        if node.op == "placeholder":
            if values.names:
                raise UnsupportedModuleError(
                    "the network takes several inputs", node=node.name, allowed="one tensor"
                )
            values.bind(node, INPUT, input_shape)
            nodes.append(Input(INPUT, (), input_shape))
        elif node.op == "output":
            outputs = _outputs(node, values, nodes)
        else:
            made = _apply(node, values)
            if made is not None:
                nodes.extend(made if isinstance(made, tuple) else (made,))
    return FloatProgram(tuple(nodes), outputs)


def _graph(model: nn.Module) -> fx.Graph:
    node, what = type(model).__name__, "the network cannot be traced"
    with user_code(what, node, home_of(model)):
        try:
            return _Tracer().trace(model)
        except (fx.proxy.TraceError, TypeError) as error:
            raise UnsupportedModuleError(
                what,
                node=node,
                found=told(error),
                allowed="a forward without control flow that depends on data, and without "
                "writing into parts of tensors",
                remedy="move the branch or loop into a module registered with --adapter, "
                "or rewrite it without one",
            ) from error


def _apply(node: fx.Node, values: Values) -> Made:
    handler: Handler | None
    if node.op == "get_attr":
        values.constant(node)
        return None
    if node.op == "call_module":
        module = values.model.get_submodule(str(node.target))
        if find_adapter(module) is not None:
            return adapted_activation(node, values)
        kind = type_before_parametrizations(module)
        handler = table.MODULES.get(kind)
        what = f"{kind.__module__}.{kind.__qualname__}"
    elif node.op == "call_function":
        handler = table.FUNCTIONS.get(node.target)
        what = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', '')}"
    else:
        handler = table.METHODS.get(str(node.target))
        what = f"Tensor.{node.target}"
    if handler is None:
        raise UnsupportedModuleError(
            f"{what} has no exact integer counterpart here",
            node=values.path(node),
            allowed=table.supported(),
            remedy=remedy(what, node, values),
        )
    with user_code(f"this call of {what} cannot be read", values.path(node)):
        return handler(node, values)


def _outputs(node: fx.Node, values: Values, nodes: list[FloatNode]) -> tuple[str, ...]:
    """Names of the nodes that the network returns, in its order."""
    results = output_list(node.args[0])
    for result in results:
        if not isinstance(result, fx.Node) or result not in values.names:
            raise UnsupportedModuleError(
                "the network must return tensors",
                node="output",
                found=type(result).__name__,
                allowed="a tensor, or a tuple, list or dictionary of tensors",
            )
    names = tuple(values.names[result] for result in results)
    if len(nodes) < 2 or not names:
        raise UnsupportedModuleError("the network computes nothing", node="output")
    if INPUT in names:
        raise UnsupportedModuleError(
            "the network returns its input unchanged",
            node="output",
            remedy="return the outputs of layers",
        )
    if len(set(names)) < len(names):
        raise UnsupportedModuleError(
            "the network returns a tensor twice", node="output", found=", ".join(names)
        )
    return names
