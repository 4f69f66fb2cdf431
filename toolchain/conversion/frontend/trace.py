"""Tracing of a torch module to a FloatProgram, with torch.fx.

Every operation is either known (`operators/table.py`) or an error that names its qualified path,
what is supported and what to do; nothing is skipped. All such errors of a network come at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.conversion.frontend.operators import table
from toolchain.conversion.frontend.operators.activations import adapted_activation
from toolchain.conversion.frontend.operators.remedies import remedy
from toolchain.conversion.frontend.operators.selection import is_in_order, is_permuted
from toolchain.conversion.frontend.operators.values import (
    Handler,
    Traced,
    Values,
    called_module,
    run_on,
)
from toolchain.conversion.frontend.tracer import Tracer
from toolchain.conversion.frontend.user_module import (
    check_readable,
    in_double,
    output_list,
    run_hooks,
    unwrapped,
)
from toolchain.errors import (
    ConversionError,
    ProgramError,
    SpikeportError,
    UnsupportedModuleError,
    together,
)
from toolchain.learning.activations import cqrelu, qcfs
from toolchain.program.float_program import Activation, FloatProgram
from toolchain.program.int_program import INPUT
from toolchain.user_code import home_of, user_code


@dataclass(frozen=True, eq=False)
class Trace:
    """A traced network.

    Attributes
    ----------
    program:
        What it computes, but for `left_out`.
    left_out:
        Per output, the function that the network applies to it last (softmax), or None.
    notes:
        What a user should know.
    """

    program: FloatProgram
    left_out: tuple[Callable[[Tensor], Tensor] | None, ...]
    notes: tuple[str, ...]


def trace(
    model: nn.Module, input_shape: tuple[int, ...], *, plain_relu: bool = False
) -> FloatProgram:
    """The program of `traced`."""
    return traced(model, input_shape, plain_relu=plain_relu).program


def traced(model: nn.Module, input_shape: tuple[int, ...], *, plain_relu: bool = False) -> Trace:
    """The trace of a network without obstacles, see `traced_with_obstacles`.

    Raises
    ------
    SpikeportError
        All obstacles, in one error.
    """
    found, obstacles = traced_with_obstacles(model, input_shape, plain_relu=plain_relu)
    if found is None or obstacles:
        raise together(obstacles)
    return found


def traced_with_obstacles(
    model: nn.Module, input_shape: tuple[int, ...], *, plain_relu: bool = False
) -> tuple[Trace | None, list[SpikeportError]]:
    """Trace `model` (in evaluation mode) for samples of `input_shape`, without the batch axis.

    With `plain_relu`, ReLUs become activations without a bound, and `percentile` measures their
    thresholds later; otherwise they are an error.

    Weights are those that hooks and parametrizations compute (weight_norm, prune). Readers of a
    tensor that an in-place operation changed take the result.

    Returns
    -------
    The trace, and an error for each operation that has no exact counterpart. In the trace, an
    activation stands in for it where it keeps the shape; None if one does not, if the forward
    fails or depends on data, takes several inputs, or returns other things than tensors.

    Raises
    ------
    UnsupportedModuleError
        If the module has no code or values (see `user_module`).
    """
    model = unwrapped(model)
    check_readable(model)
    run_hooks(model, input_shape)
    tracer = Tracer(_is_known, functions=(qcfs, cqrelu))
    failure = _record(tracer, model, input_shape)
    values = Values(model, input_shape, _final(tracer.graph), plain_relu=plain_relu)
    obstacles: list[SpikeportError] = []
    outputs: list[tuple[str, fx.Node]] = []
    is_whole = True
    for node in tracer.graph.nodes:
        try:
            if node.op == "placeholder":
                values.bind(node, Traced(INPUT, input_shape))
            elif node.op == "output":
                outputs = _outputs(node, values) if is_whole else []
            elif node.op != "get_attr":
                _apply(node, values)
        except (UnsupportedModuleError, ConversionError, ProgramError) as error:
            obstacles.append(error)
            if "shape" not in node.meta:
                failure = None  # torch failed here too: this says why
            is_whole &= _stand_in(node, values)
    if failure is not None:
        obstacles.insert(0, failure)
    if not outputs:
        return None, obstacles
    program = FloatProgram(tuple(values.nodes), tuple(name for name, _ in outputs))
    left_out = tuple(values.left_out.get(node) for _, node in outputs)
    return Trace(program, left_out, tuple(values.notes)), obstacles


def _record(
    tracer: Tracer, model: nn.Module, input_shape: tuple[int, ...]
) -> UnsupportedModuleError | None:
    """Record the network's forward as `tracer.graph`; the error that ended it early, if any."""
    node = type(model).__name__
    try:
        with user_code("the network's forward fails", node, home_of(model)), in_double(model):
            tracer.record(model, input_shape)
    except UnsupportedModuleError as error:
        if not isinstance(error.__cause__, fx.proxy.TraceError):
            return error
        return UnsupportedModuleError(
            "the network cannot be traced",
            node=node,
            found=error.found,
            allowed="a forward without control flow that depends on data, and without "
            "writing into parts of tensors",
            remedy="move the branch or loop into a module registered with adapters=FILE.py, "
            "or rewrite it without one",
        )
    return None


def _is_known(module: nn.Module) -> bool:
    return find_adapter(module) is not None or type_before_parametrizations(module) in table.MODULES


def _apply(node: fx.Node, values: Values) -> None:
    handler, what = _handler(node)
    if handler is None:
        raise UnsupportedModuleError(
            f"{what} has no exact integer counterpart here",
            node=values.path(node),
            allowed=table.supported(),
            remedy=remedy(what, node, values),
        )
    with user_code(f"this call of {what} cannot be read", values.path(node)):
        handler(node, values)
    for before in node.all_input_nodes:
        if before in values.left_out:
            _behind_last(node, before, values)


def _handler(node: fx.Node) -> tuple[Handler | None, str]:
    """The handler of a node, and the name of what it calls."""
    if node.op == "call_module":
        module = called_module(node)
        kind = type_before_parametrizations(module)
        known = adapted_activation if find_adapter(module) else table.MODULES.get(kind)
        return known, f"{kind.__module__}.{kind.__qualname__}"
    if node.op == "call_function":
        return table.FUNCTIONS.get(node.target), _name_of(node.target)
    return table.METHODS.get(str(node.target)), f"Tensor.{node.target}"


def _final(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose values the network returns, at most in another order, and nothing else."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.users and all(
            user.op == "output" or (user in found and _handler(user)[0] in table.ARRANGING)
            for user in node.users
        ):
            found.add(node)
    return found


def _name_of(function: Any) -> str:
    """`package.function`, or `package.Class` for the function of a torch.autograd.Function."""
    owner = getattr(function, "__self__", None)
    named = owner if isinstance(owner, type) else function
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__name__', '')}"


def _stand_in(node: fx.Node, values: Values) -> bool:
    """Let nodes behind an unknown one see a tensor of its shape, so that their errors show too.

    Whether it is a value of the program: an activation of a tensor of the same shape.
    """
    shape = node.meta.get("shape")
    first = node.args[0] if node.args else None
    source = values.value(first) if isinstance(first, fx.Node) else None
    if first in values.left_out:
        return True
    if (
        isinstance(shape, tuple)
        and isinstance(source, Traced)
        and source.index is None
        and source.base == shape[1:]
        and source.name in values.names()
    ):
        name = values.new_name(node, "~")
        stand_in = Activation(name, (source.name,), np.ones(1), 1, 0.0, "stand-in")
        values.emit(node, stand_in, source)
        return True
    if isinstance(shape, tuple):
        values.bind(node, _unknown(str(node), shape[1:]))
    elif isinstance(shape, list):
        values.bind(node, [_unknown(f"{node}[{i}]", s[1:]) for i, s in enumerate(shape)])
    return False


def _unknown(name: str, shape: tuple[int, ...]) -> Traced:
    """A tensor of an unknown operation; a sequence (C, L) lies in an image (C, 1, L)."""
    if len(shape) != 2:
        return Traced(name, shape)
    image = Traced(name, (shape[0], 1, shape[1]))
    return Traced(name, image.base, image.positions().reshape(shape), name)


def _behind_last(node: fx.Node, before: fx.Node, values: Values) -> None:
    """Leave out a view of what a last function gives, which is left out already.

    Raises
    ------
    UnsupportedModuleError
        If it changes the order: outputs would have another one than those of the network.
    """
    found, last = values.tensor(node, before), values.left_out[before]
    view = values.value(node)
    values.bind(node, found)
    if not isinstance(view, Traced) or not np.array_equal(
        view.positions().ravel(), found.positions().ravel()
    ):
        raise UnsupportedModuleError(
            "outputs are put into another order behind the network's last function",
            node=values.path(node),
            remedy="put them into this order in front of the function",
        )
    values.left_out[node] = lambda tensor: run_on(node, values, before, last(tensor))


def _returned(output: fx.Node, node: fx.Node, values: Values) -> str:
    """The float node whose values `node` returns; the order it puts them in last is left out.

    Logits that are an image of one pixel, which the network flattens, are those of a dense layer.
    """
    view = values.tensor(output, node)
    if view.shape == ():
        view = replace(view, index=view.positions().reshape(1))
        values.left_out[node] = _arranging(np.array(1), values.left_out.get(node))
    is_pixel = view.base[1:] == (1, 1) and not values.is_activation(view)
    if is_pixel and len(view.shape) == 1:
        return values.vector(view, values.path(node)).name
    is_vector = view.shape == view.base[:1]
    if view.index is not None and is_permuted(view.index, view.base) and not is_vector:
        values.left_out[node] = _arranging(view.index, values.left_out.get(node))
        if view.shape != (view.index.size,) or not is_in_order(view.index, view.base):
            values.notes.append(
                f"{view.path}: outputs are {view.base}, which the network arranges as {view.shape}"
            )
        name = view.name
    else:
        name = values.source(output, node).name
    if not is_pixel or len(node.meta.get("shape", view.base)) > 2:
        return name
    last = values.left_out.get(node)
    if last is not None:
        values.left_out[node] = lambda tensor: last(tensor.reshape(len(tensor), *view.base))
    image = Traced(view.name, view.base)
    return values.vector(image, values.path(node)).name


def _arranging(
    index: np.ndarray, last: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor]:
    """What puts outputs (N, ...) into the order and shape of `index`, and then applies `last`."""
    order = torch.from_numpy(index.reshape(-1) - 1)

    def arranged(tensor: Tensor) -> Tensor:
        found = tensor.flatten(1)[:, order].reshape(len(tensor), *index.shape)
        return found if last is None else last(found)

    return arranged


def _outputs(node: fx.Node, values: Values) -> list[tuple[str, fx.Node]]:
    """Names of the float nodes that the network returns, in its order, and their nodes."""
    results = output_list(node.args[0])
    for result in results:
        if not isinstance(result, fx.Node) or not isinstance(values.value(result), Traced):
            raise UnsupportedModuleError(
                "the network must return tensors",
                node="output",
                found=type(result).__name__,
                allowed="a tensor, or a tuple, list or dictionary of tensors",
            )
    named = [(_returned(node, result, values), result) for result in results]
    names = [name for name, _ in named]
    if len(values.nodes) < 2 or not names:
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
    return named
